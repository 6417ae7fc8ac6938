/**
 * Writes protobuf bodies straight into a channel's outgoing memory. The encoders of
 * `generated/codecs.ts` call it, a field at a time.
 */
const encoder = new TextEncoder();
/** So many words are copied as bytes, which needs a view of them; fewer are not worth one. */
const MANY = 512;
const LITTLE_ENDIAN = new Uint8Array(Uint32Array.of(1).buffer)[0] === 1;

export class BodyWriter {
  #bytes: Uint8Array = new Uint8Array(0);
  #view: DataView = new DataView(new ArrayBuffer(0));
  #pos = 0;

  /** Byte after the last one written. */
  get position(): number {
    return this.#pos;
  }

  /** Where to write next. The caller has made room for the largest body. */
  start(bytes: Uint8Array, position: number): void {
    if (bytes !== this.#bytes) {
      this.#bytes = bytes;
      this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    }
    this.#pos = position;
  }

  /** A varint; also every tag. */
  uint32(value: number): this {
    const bytes = this.#bytes;
    let rest = value >>> 0;
    let pos = this.#pos;
    while (rest > 127) {
      bytes[pos++] = (rest & 127) | 128;
      rest >>>= 7;
    }
    bytes[pos++] = rest;
    this.#pos = pos;
    return this;
  }

  bool(value: boolean): this {
    this.#bytes[this.#pos++] = value ? 1 : 0;
    return this;
  }

  fixed32(value: number): this {
    this.#view.setUint32(this.#pos, value, true);
    this.#pos += 4;
    return this;
  }

  /** A packed field, its length in front. */
  fixed32s(values: ArrayLike<number>): this {
    this.uint32(values.length * 4);
    if (values.length >= MANY && LITTLE_ENDIAN && values instanceof Uint32Array) {
      this.#bytes.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength), this.#pos);
      this.#pos += values.byteLength;
      return this;
    }
    for (let i = 0; i < values.length; i++) this.fixed32(values[i] as number);
    return this;
  }

  /** A packed field, its length in front. */
  uint32s(values: ArrayLike<number>): this {
    const start = this.#open();
    for (let i = 0; i < values.length; i++) this.uint32(values[i] as number);
    return this.#close(start);
  }

  bytes(value: Uint8Array): this {
    this.uint32(value.length);
    this.#bytes.set(value, this.#pos);
    this.#pos += value.length;
    return this;
  }

  string(value: string): this {
    return this.bytes(encoder.encode(value));
  }

  /** An entry of a map from strings to strings, its length in front. */
  entry(key: string, value: string): this {
    const start = this.#open();
    return this.uint32(ENTRY.KEY).string(key).uint32(ENTRY.VALUE).string(value).#close(start);
  }

  /**
   * Begins a part whose length is not known yet: one byte is set aside for it. Returns where it
   * begins.
   */
  #open(): number {
    this.#pos += 1;
    return this.#pos;
  }

  /** Puts the length of the part that begins at `start` in front of it. */
  #close(start: number): this {
    const length = this.#pos - start;
    let extra = 0;
    for (let rest = length >>> 7; rest > 0; rest >>>= 7) extra++;
    if (extra > 0) this.#bytes.copyWithin(start + extra, start, this.#pos);
    this.#pos = start - 1;
    this.uint32(length);
    this.#pos += length;
    return this;
  }
}

/** Tags of the fields of a map's entry. */
export const ENTRY = { KEY: 10, VALUE: 18 } as const;
