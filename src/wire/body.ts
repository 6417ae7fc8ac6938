/**
 * Bodies of frames. The code for each message is generated from `proto/viommu.proto`
 * (`generated/codecs.ts`). It encodes through {@link BodyWriter} and decodes into a message that is
 * reused, so messages of numbers need no allocation.
 */
import { CodedError } from '../base/errors.js';
import { BodyReader } from './reader.js';
import type { BodyWriter } from './writer.js';

/** Defaults of lists and bytes. */
export const EMPTY: readonly number[] = [];
export const NO_BYTES = new Uint8Array(0);

/** One message type. */
export class Codec<T extends object> {
  readonly name: string;
  readonly #clear: (message: T) => void;
  readonly #encode: (message: T, writer: BodyWriter) => void;
  readonly #decode: (message: T, reader: BodyReader) => void;
  readonly #reader = new BodyReader();
  readonly #message: T;

  /**
   * @param name the message's name in the contract
   * @param clear sets every field to its default, before a message is decoded into again
   * @param encode writes the fields that are not at their defaults
   * @param decode reads fields as long as there are any
   */
  constructor(
    name: string,
    clear: (message: T) => void,
    encode: (message: T, writer: BodyWriter) => void,
    decode: (message: T, reader: BodyReader) => void,
  ) {
    this.name = name;
    this.#clear = clear;
    this.#encode = encode;
    this.#decode = decode;
    this.#message = this.create();
  }

  /** A message of its own, every field at its default. */
  create(): T {
    const message = {} as T;
    this.#clear(message);
    return message;
  }

  /** Appends the encoded message to what `writer` writes. */
  encode(message: T, writer: BodyWriter): void {
    this.#encode(message, writer);
  }

  /**
   * Decodes bytes [start, end). The message is valid until the next call (byte fields: until the
   * next frame is received). Throws `BAD_BODY`.
   */
  decode(bytes: Uint8Array, start: number, end: number): T {
    const message = this.#message;
    this.#clear(message);
    try {
      this.#reader.start(bytes, start, end);
      this.#decode(message, this.#reader);
    } catch (error) {
      throw new CodedError('BAD_BODY', `${this.name}: ${(error as Error).message}`);
    }
    return message;
  }
}
