/**
 * Bodies: encoders and decoders made once, at load, from `proto/viommu.proto`. protobufjs generates the code
 * for each type; here it writes through {@link BodyWriter} and decodes into a message that is reused, so that
 * neither direction allocates for messages of numbers.
 */
import { readFileSync } from 'node:fs';
import protobuf from 'protobufjs';
import { CodedError } from '../base/errors.js';
import type { BodyWriter } from './writer.js';

/** The wire contract; two directories up from both `src/wire` and `dist/wire`. */
export const PROTO_FILE = new URL('../../proto/viommu.proto', import.meta.url);

/** The contract as protobufjs sees it; for tests and tools. */
export const contract = protobuf.parse(readFileSync(PROTO_FILE, 'utf8'), new protobuf.Root()).root;

type Decode = (
  reader: protobuf.Reader,
  length: number,
  group: undefined,
  depth: number,
  into: object,
) => unknown;

/** Defaults of lists and bytes. */
export const EMPTY: readonly number[] = [];
export const NO_BYTES = new Uint8Array(0);

const utf8 = new TextDecoder('utf-8', { ignoreBOM: true });

/**
 * Strings are for people. One that is not UTF-8 (cut in the middle of a character, say) has U+FFFD where it is wrong; a peer does
 * not lose its connection for it.
 */
class TolerantReader extends protobuf.Reader {
  override stringVerify(): string {
    return utf8.decode(this.bytes());
  }
}

/** One message type. */
export class Codec<T extends object> {
  readonly name: string;
  readonly #type: protobuf.Type;
  readonly #decode: Decode;
  readonly #reader: protobuf.Reader;
  readonly #message: T;
  readonly #clear: (message: T) => void;

  /**
   * @param name the message's name in the contract
   * @param clear sets every field to its default; a message is cleared before it is decoded into again
   */
  constructor(name: string, clear: (message: T) => void) {
    this.name = name;
    this.#type = contract.lookupType(`viommu.${name}`).setup();
    // The generated decoder's further parameters (a message to fill among them) are not in the published type.
    this.#decode = this.#type.decode as unknown as Decode;
    this.#reader = new TolerantReader(new Uint8Array(0));
    this.#reader.discardUnknown = true;
    this.#clear = clear;
    this.#message = this.create();
  }

  /** A message of its own, every field at its default. */
  create(): T {
    const message = this.#type.create() as unknown as T;
    this.#clear(message);
    return message;
  }

  /** Appends the encoded message to what `writer` writes. */
  encode(message: T, writer: BodyWriter): void {
    this.#type.encode(message, writer as unknown as protobuf.Writer);
  }

  /**
   * Decodes bytes [start, end). The message is valid until the next call (byte fields: until the next frame is
   * received). Throws `BAD_BODY`.
   */
  decode(bytes: Uint8Array, start: number, end: number): T {
    const reader = this.#reader;
    const message = this.#message;
    if (reader.buf !== bytes) this.#retarget(bytes);
    reader.pos = start;
    reader.len = end;
    this.#clear(message);
    try {
      this.#decode(reader, end - start, undefined, 0, message);
    } catch (error) {
      throw new CodedError('BAD_BODY', `${this.name}: ${(error as Error).message}`);
    }
    return message;
  }

  #retarget(bytes: Uint8Array): void {
    this.#reader.buf = bytes;
    // The reader keeps a DataView of its buffer for packed fields.
    (this.#reader as unknown as { view: DataView | null }).view = null;
  }
}
