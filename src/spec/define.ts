/**
 * How a specification's pages become data: every register, structure, descriptor and event is one
 * declared table in the specification's own names and bit numbers. Getters, masks, reset values,
 * decoded text, the capability page and the tests all come from that table, so a position stands in
 * exactly one place.
 *
 * Bits are numbered as printed: bit 0 is the least significant bit of the first 32-bit word; bit 64
 * of a 128-bit structure is bit 0 of its third word. A field is `[msb, lsb]`, or one number for a
 * single bit.
 */

/** How software sees a register field. */
export type Access = 'RO' | 'RW' | 'RW1C' | 'RW1CS' | 'RWS' | 'ROS' | 'WO' | 'RsvdZ' | 'RsvdP';

export interface Field {
  readonly name: string;
  readonly msb: number;
  readonly lsb: number;
  readonly access: Access;
  /** Value at power-on; the model may replace it from its capabilities. */
  readonly reset: number;
  /**
   * True when the value is an address whose bits stand at their own positions (not shifted down).
   */
  readonly address: boolean;
}

export interface FieldSpec {
  readonly msb: number;
  readonly lsb: number;
  readonly access?: Access;
  readonly reset?: number;
  readonly address?: boolean;
}

export type FieldInput = number | readonly [msb: number, lsb: number] | FieldSpec;

/** A read-write register field. */
export const rw = (msb: number, lsb: number = msb, reset = 0): FieldSpec => ({
  msb,
  lsb,
  access: 'RW',
  reset,
});
/** A read-only register field. */
export const ro = (msb: number, lsb: number = msb, reset = 0): FieldSpec => ({
  msb,
  lsb,
  access: 'RO',
  reset,
});
/** Write 1 to clear, sticky across reset (but not across power-on). */
export const rw1cs = (msb: number, lsb: number = msb): FieldSpec => ({ msb, lsb, access: 'RW1CS' });
/** Read-only, sticky. */
export const ros = (msb: number, lsb: number = msb): FieldSpec => ({ msb, lsb, access: 'ROS' });
/** Write-only: reads as zero. */
export const wo = (msb: number, lsb: number = msb): FieldSpec => ({ msb, lsb, access: 'WO' });
/** An address field: its value keeps its bit positions. */
export const addr = (msb: number, lsb: number, access: Access = 'RW'): FieldSpec => ({
  msb,
  lsb,
  access,
  address: true,
});

function toField(name: string, input: FieldInput): Field {
  const spec: FieldSpec =
    typeof input === 'number'
      ? { msb: input, lsb: input }
      : 'length' in input
        ? { msb: input[0], lsb: input[1] }
        : input;
  if (spec.lsb > spec.msb) throw new Error(`field ${name}: lsb ${spec.lsb} above msb ${spec.msb}`);
  return {
    name,
    msb: spec.msb,
    lsb: spec.lsb,
    access: spec.access ?? 'RW',
    reset: spec.reset ?? 0,
    address: spec.address ?? false,
  };
}

/** Words of one structure in memory, little-endian 32-bit. */
export type Words = Uint32Array | Int32Array;

/** Reads one field; at most 32 bits wide, unsigned. */
type Getter = (words: Words, base?: number) => number;

/**
 * A structure in memory. `get.NAME(words)` is the field's value: unsigned, shifted down, for fields
 * of at most 32 bits; for `addr` fields an exact number with the bits at their own positions (≤ 52
 * bits).
 */
export interface Layout<K extends string> {
  readonly name: string;
  readonly bytes: number;
  readonly wordCount: number;
  readonly fields: { readonly [P in K]: Field };
  readonly get: { readonly [P in K]: Getter };
  /** Mask of the bits of word `index` that belong to no field (reserved). */
  readonly reserved: readonly number[];
}

/**
 * Declares a structure of `bytes` bytes. Throws at load when fields overlap or leave the structure:
 * the table itself is then wrong.
 */
export function layout<K extends string>(
  name: string,
  bytes: number,
  inputs: { readonly [P in K]: FieldInput },
): Layout<K> {
  const fields = fieldTable(name, bytes * 8, inputs);
  const get = {} as { [P in K]: Getter };
  for (const key of Object.keys(fields) as K[]) get[key] = makeGetter(fields[key]);
  return { name, bytes, wordCount: bytes / 4, fields, get, reserved: reservedMasks(bytes / 4, fields) };
}

/**
 * What a specification numbers (opcodes, descriptor types, events), one row each: name, number,
 * layout. A row without a layout is known by its number only.
 */
type NumberedRows = { readonly [name: string]: readonly [number: number, shape?: Layout<string>] };

/** The numbers of such rows, by name. */
export function numbersOf<const T extends NumberedRows>(rows: T): { readonly [P in keyof T]: T[P][0] } {
  return Object.fromEntries(Object.entries(rows).map(([name, [number]]) => [name, number])) as {
    [P in keyof T]: T[P][0];
  };
}

/** Their layouts, by number. */
export function layoutsOf(rows: NumberedRows): { readonly [number: number]: Layout<string> | undefined } {
  const layouts: { [number: number]: Layout<string> } = {};
  for (const [number, shape] of Object.values(rows)) if (shape !== undefined) layouts[number] = shape;
  return layouts;
}

/** Their names, by number. */
export function namesOf(rows: NumberedRows): readonly (string | undefined)[] {
  const names: (string | undefined)[] = [];
  for (const [name, [number]] of Object.entries(rows)) names[number] = name;
  return names;
}

/** A memory-mapped register of 32, 64 or 128 bits at a byte offset of the register page. */
export interface Register<K extends string> extends Layout<K> {
  readonly offset: number;
  readonly width: number;
}

/** Declares a register; see {@link layout}. */
export function register<K extends string>(
  name: string,
  offset: number,
  width: 32 | 64 | 128,
  inputs: { readonly [P in K]: FieldInput },
): Register<K> {
  return { ...layout(name, width / 8, inputs), offset, width };
}

/**
 * Words with the given field values in place; for tests, drivers and reset values, not for hot
 * code.
 */
export function pack<K extends string>(
  shape: Layout<K>,
  values: { readonly [P in K]?: number },
  into: Words = new Uint32Array(shape.wordCount),
  base = 0,
): Words {
  for (const key of Object.keys(values) as K[]) {
    const value = values[key];
    if (value !== undefined) setField(into, base, shape.fields[key], value);
  }
  return into;
}

/** Stores `value` into a field (address fields: the address itself). Not for hot code. */
export function setField(words: Words, base: number, field: Field, value: number): void {
  let rest = field.address ? Math.floor(value / 2 ** (field.lsb % 32)) : value;
  if (field.address && field.lsb >= 32) rest = Math.floor(value / 2 ** (field.lsb % 64));
  for (let bit = field.lsb; bit <= field.msb; ) {
    const index = base + (bit >> 5);
    const shift = bit & 31;
    const width = Math.min(32 - shift, field.msb - bit + 1);
    const mask = width === 32 ? 0xffffffff : ((1 << width) - 1) >>> 0;
    const part = rest % 2 ** width;
    words[index] = (words[index] & ~(mask << shift)) | (part << shift);
    rest = Math.floor(rest / 2 ** width);
    bit += width;
  }
}

/**
 * Field names and values, for people. Fields wider than 32 bits are shown as exact numbers up to 52
 * bits.
 */
export function decode<K extends string>(shape: Layout<K>, words: Words, base = 0): { [P in K]: number } {
  const out = {} as { [P in K]: number };
  for (const key of Object.keys(shape.fields) as K[]) out[key] = shape.get[key](words, base);
  return out;
}

/**
 * The bits of a field in one 32-bit word of its structure; default: the word of its lowest bit. For
 * masks that are made once. To read a field use its getter.
 */
export function maskIn(field: Field, word: number = field.lsb >> 5): number {
  let mask = 0;
  for (let bit = field.lsb; bit <= field.msb; bit++) if (bit >> 5 === word) mask |= 1 << (bit & 31);
  return mask;
}

/** The bits of several fields of a structure in one of its words; all of them stand in it. */
export function masksIn<K extends string>(shape: Layout<K>, word: number, names: readonly K[]): number {
  let mask = 0;
  for (const name of names) {
    const bits = maskIn(shape.fields[name], word);
    if (bits === 0) throw new Error(`${shape.name}.${name} is not in word ${word}`);
    mask |= bits;
  }
  return mask;
}

/** Where a field's lowest bit stands in its word. */
export function shiftOf(field: Field): number {
  return field.lsb & 31;
}

function fieldTable<K extends string>(
  owner: string,
  totalBits: number,
  inputs: { readonly [P in K]: FieldInput },
): { [P in K]: Field } {
  const fields = {} as { [P in K]: Field };
  const taken = new Map<number, string>();
  for (const key of Object.keys(inputs) as K[]) {
    const field = toField(key, inputs[key]);
    if (field.msb >= totalBits)
      throw new Error(`${owner}.${key}: bit ${field.msb} outside ${totalBits} bits`);
    for (let bit = field.lsb; bit <= field.msb; bit++) {
      const other = taken.get(bit);
      if (other !== undefined) throw new Error(`${owner}: ${key} and ${other} overlap at bit ${bit}`);
      taken.set(bit, key);
    }
    fields[key] = field;
  }
  return fields;
}

function reservedMasks(wordCount: number, fields: { readonly [name: string]: Field }): readonly number[] {
  const masks = new Array<number>(wordCount).fill(0xffffffff);
  for (const field of Object.values(fields)) {
    for (let bit = field.lsb; bit <= field.msb; bit++) {
      masks[bit >> 5] = (masks[bit >> 5] & ~(1 << (bit & 31))) >>> 0;
    }
  }
  return masks;
}

/**
 * Getters are generated as source so that each is a constant shift and mask that the engine
 * inlines; a closure over `msb`/`lsb` costs several times as much (ARCHITECTURE.md, Speed).
 */
function makeGetter(field: Field): Getter {
  const { msb, lsb } = field;
  const first = lsb >> 5;
  const last = msb >> 5;
  const shift = lsb & 31;
  const width = msb - lsb + 1;
  const word = (index: number): string => `w[b+${index}]`;
  let expression: string;
  if (field.address || width > 32) {
    // An exact number: bits keep their positions within the 64-bit word that they stand in
    // (addresses), or are shifted down (wide values, which callers only print).
    const parts: string[] = [];
    for (let index = first; index <= last; index++) {
      const low = index === first ? shift : 0;
      const high = index === last ? msb & 31 : 31;
      const mask = maskText(high, low);
      const origin = field.address ? first & ~1 : first;
      const scale = 2 ** ((index - origin) * 32);
      parts.push(`((${word(index)}&${mask})>>>0)*${scale}`);
    }
    const sum = parts.join('+');
    expression = field.address || shift === 0 ? sum : `Math.floor((${sum})/${2 ** shift})`;
  } else if (first === last) {
    expression =
      width === 32 ? `${word(first)}>>>0` : `(${word(first)}>>>${shift})&${maskText(width - 1, 0)}`;
    if (width === 31) expression = `(${expression})>>>0`;
  } else {
    const joined = `((${word(first)}>>>${shift})|(${word(last)}<<${32 - shift}))`;
    expression = width === 32 ? `${joined}>>>0` : `(${joined}&${maskText(width - 1, 0)})>>>0`;
  }
  return new Function('w', 'b=0', `return ${expression};`) as Getter;
}

function maskText(high: number, low: number): string {
  let mask = 0;
  for (let bit = low; bit <= high; bit++) mask |= 1 << bit;
  return `0x${(mask >>> 0).toString(16)}`;
}
