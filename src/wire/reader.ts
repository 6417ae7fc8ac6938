/**
 * Reads protobuf bodies out of a channel's memory. The decoders of `generated/codecs.ts` call it, a
 * field at a time. It checks every length against the body's end, and throws a plain `Error` for a
 * body that is wrong.
 */
import { ENTRY } from './writer.js';

const utf8 = new TextDecoder('utf-8', { ignoreBOM: true });

/** So many words are read through a view of the bytes; fewer are not worth one. */
const MANY = 128;
/** Groups in groups, in fields that are skipped. */
const MOST_NESTED = 100;

const WIRE_TYPE = { VARINT: 0, FIXED64: 1, BYTES: 2, GROUP: 3, END_GROUP: 4, FIXED32: 5 } as const;
/**
 * Bits of a varint: of a value's, which may be of 64 bits, and where the last byte of 32 bits
 * begins.
 */
const VARINT_BITS = 70;
const LAST_SHIFT = 28;

export class BodyReader {
  #bytes: Uint8Array = new Uint8Array(0);
  #view: DataView | undefined;
  #pos = 0;
  #end = 0;

  /** What follows is in bytes [start, end). */
  start(bytes: Uint8Array, start: number, end: number): void {
    if (end > bytes.length) throw new Error('a body beyond its buffer');
    if (bytes !== this.#bytes) {
      this.#bytes = bytes;
      this.#view = undefined;
    }
    this.#pos = start;
    this.#end = end;
  }

  /** The next field's number << 3 | its wire type; 0 at the end. */
  next(): number {
    const pos = this.#pos;
    if (pos >= this.#end) return 0;
    const first = this.#bytes[pos] as number;
    if (first > 0 && first < 0x80) {
      this.#pos = pos + 1;
      return first;
    }
    const tag = this.#varint32(0x0f);
    if (tag === 0) throw new Error('field number 0');
    return tag;
  }

  /** A varint; bits above 32 are dropped. */
  uint32(): number {
    const first = this.#pos < this.#end ? (this.#bytes[this.#pos] as number) : 0x80;
    if (first < 0x80) {
      this.#pos++;
      return first;
    }
    let value = 0;
    for (let shift = 0; shift < VARINT_BITS; shift += 7) {
      const byte = this.#byte();
      if (shift <= LAST_SHIFT) value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value >>> 0;
    }
    throw new Error('a varint without an end');
  }

  bool(): boolean {
    let value = false;
    for (let shift = 0; shift < VARINT_BITS; shift += 7) {
      const byte = this.#byte();
      if ((byte & 0x7f) !== 0) value = true;
      if (byte < 0x80) return value;
    }
    throw new Error('a varint without an end');
  }

  fixed32(): number {
    const pos = this.#pos;
    if (pos + 4 > this.#end) this.#advance(4);
    this.#pos = pos + 4;
    const bytes = this.#bytes;
    return (
      ((bytes[pos] as number) |
        ((bytes[pos + 1] as number) << 8) |
        ((bytes[pos + 2] as number) << 16) |
        ((bytes[pos + 3] as number) << 24)) >>>
      0
    );
  }

  /** Not a copy. */
  bytes(): Uint8Array {
    const length = this.#length();
    const pos = this.#advance(length);
    return this.#bytes.subarray(pos, pos + length);
  }

  /**
   * Strings are for people. One that is not UTF-8 (cut in the middle of a character, say) has
   * U+FFFD where it is wrong; a peer does not lose its connection for it.
   */
  string(): string {
    return utf8.decode(this.bytes());
  }

  /** A packed list, behind what is there of it. */
  fixed32s(before: ArrayLike<number>): number[] {
    const length = this.#length();
    const pos = this.#advance(length);
    if (length % 4 !== 0) throw new Error('a list that ends inside a word');
    const count = length / 4;
    const list = started(before);
    const from = list.length;
    list.length = from + count;
    if (count >= MANY) {
      this.#view ??= new DataView(this.#bytes.buffer, this.#bytes.byteOffset, this.#bytes.byteLength);
      const view = this.#view;
      for (let i = 0; i < count; i++) list[from + i] = view.getUint32(pos + i * 4, true);
      return list;
    }
    this.#pos = pos;
    for (let i = 0; i < count; i++) list[from + i] = this.fixed32();
    return list;
  }

  /** A packed list, behind what is there of it. */
  uint32s(before: ArrayLike<number>): number[] {
    const length = this.#length();
    const end = this.#end;
    this.#end = this.#advance(length) + length;
    this.#pos -= length;
    const list = started(before);
    while (this.#pos < this.#end) list.push(this.uint32());
    this.#end = end;
    return list;
  }

  /** One value of a list that is not packed, behind what is there of it. */
  single(before: ArrayLike<number>, value: number): number[] {
    const list = started(before);
    list.push(value);
    return list;
  }

  /** An entry of a map from strings to strings. */
  entry(map: Record<string, string>): void {
    const length = this.#length();
    const end = this.#end;
    this.#end = this.#advance(length) + length;
    this.#pos -= length;
    let key = '';
    let value = '';
    for (let tag = this.next(); tag !== 0; tag = this.next()) {
      if (tag === ENTRY.KEY) key = this.string();
      else if (tag === ENTRY.VALUE) value = this.string();
      else this.skip(tag);
    }
    this.#end = end;
    // An assignment to `__proto__` would be none.
    Object.defineProperty(map, key, { value, writable: true, enumerable: true, configurable: true });
  }

  /** Passes over a field that is not known, or that has another wire type than it should. */
  skip(tag: number, depth = 0): void {
    if (depth > MOST_NESTED) throw new Error('groups in too many groups');
    const field = tag >>> 3;
    if (field === 0) throw new Error('field number 0');
    const type = tag & 7;
    if (type === WIRE_TYPE.VARINT) while (this.#byte() >= 0x80);
    else if (type === WIRE_TYPE.FIXED64) this.#advance(8);
    else if (type === WIRE_TYPE.BYTES) this.#advance(this.#length());
    else if (type === WIRE_TYPE.FIXED32) this.#advance(4);
    else if (type === WIRE_TYPE.GROUP) this.#skipGroup(field, depth);
    else throw new Error(`wire type ${type}`);
  }

  #skipGroup(field: number, depth: number): void {
    for (;;) {
      const tag = this.next();
      if (tag === 0) throw new Error('a group without an end');
      if ((tag & 7) !== WIRE_TYPE.END_GROUP) this.skip(tag, depth + 1);
      else if (tag >>> 3 === field) return;
      else throw new Error('the end of another group');
    }
  }

  #length(): number {
    const first = this.#pos < this.#end ? (this.#bytes[this.#pos] as number) : 0x80;
    if (first < 0x80) {
      this.#pos++;
      return first;
    }
    return this.#varint32(0x07);
  }

  /** A varint of at most five bytes, the fifth not above `most`. */
  #varint32(most: number): number {
    let value = 0;
    for (let shift = 0; shift < LAST_SHIFT; shift += 7) {
      const byte = this.#byte();
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    const last = this.#byte();
    if (last > most) throw new Error('a varint of more than 32 bits');
    return (value | (last << LAST_SHIFT)) >>> 0;
  }

  #byte(): number {
    return this.#bytes[this.#advance(1)] as number;
  }

  /** Passes over `count` bytes; returns where they begin. */
  #advance(count: number): number {
    const pos = this.#pos;
    if (pos + count > this.#end)
      throw new Error(`${count} bytes at ${pos}, and the body ends at ${this.#end}`);
    this.#pos = pos + count;
    return pos;
  }
}

function started(list: ArrayLike<number>): number[] {
  return list.length === 0 ? [] : (list as number[]);
}
