/**
 * What entries of the two command queues ask for, written down from the specifications by bit
 * numbers of the whole entry: VT-d §6.5.2, IHI 0070 chapter 4. Shares nothing with the tables that
 * the models use.
 */
import { ANY } from '../../src/base/ids.js';
import type { Dropped } from '../../src/sim/sim-iotlb.js';

/** What a plain entry does; undefined: it is not plain. */
type Effect =
  | { readonly drops: Dropped }
  | { readonly stores: { readonly address: number; readonly value: number } }
  | Readonly<Record<never, never>>;

const EVERY = { first: 0n, end: 1n << 64n } as const;

function bits(entry: bigint, msb: number, lsb: number): number {
  return Number((entry >> BigInt(lsb)) & ((1n << BigInt(msb - lsb + 1)) - 1n));
}

const clear = (entry: bigint, msb: number, lsb: number): boolean => bits(entry, msb, lsb) === 0;

/** The entry as words. */
export function wordsOf(entry: bigint, bytes: number): Uint32Array {
  return Uint32Array.from({ length: bytes / 4 }, (_, word) => bits(entry, word * 32 + 31, word * 32));
}

/** Blocks of 2^log2 bytes, of which the first is the one that an address is in. */
function blocks(address: bigint, log2: number, count = 1n): { readonly first: bigint; readonly end: bigint } {
  const first = (address >> BigInt(log2)) << BigInt(log2);
  const end = first + (count << BigInt(log2));
  return { first, end: end < EVERY.end ? end : EVERY.end };
}

/** A 128- or 256-bit descriptor of a unit whose addresses have `hostBits`. */
export function vtdEffect(entry: bigint, scalable: boolean, hostBits: number): Effect | undefined {
  if (!clear(entry, 255, 128) || !clear(entry, 11, 9)) return undefined;
  const type = bits(entry, 3, 0);
  const did = bits(entry, 31, 16);
  const address = entry >> 64n;
  if (type === 2) {
    // Reserved: 8, 15:12, 63:32, 75:71.
    if (!clear(entry, 8, 8) || !clear(entry, 15, 12) || !clear(entry, 63, 32) || !clear(entry, 75, 71))
      return undefined;
    const whole = { drops: { space: did, sub: ANY, ...EVERY } };
    const granularity = bits(entry, 5, 4);
    if (granularity === 2) return whole;
    // CAP.MAMV is 18.
    const mask = bits(entry, 69, 64);
    if (granularity !== 3 || mask > 18) return undefined;
    // A domain of first-stage mappings loses all of them (§6.5.2.3), and the peer knows no stage.
    return scalable ? whole : { drops: { space: did, sub: ANY, ...blocks(address, 12 + mask) } };
  }
  if (type === 6 && scalable) {
    // Reserved: 8:6, 15:12, 63:52, 75:71.
    if (!clear(entry, 8, 6) || !clear(entry, 15, 12) || !clear(entry, 63, 52) || !clear(entry, 75, 71))
      return undefined;
    const sub = bits(entry, 51, 32);
    const granularity = bits(entry, 5, 4);
    if (granularity === 2) return { drops: { space: did, sub, ...EVERY } };
    const mask = bits(entry, 69, 64);
    if (granularity !== 3 || mask > 51) return undefined;
    return { drops: { space: did, sub, ...blocks(address, 12 + mask) } };
  }
  if (type === 5) {
    // IF 4, SW 5, FN 6, PD 7; reserved: 8, 31:12, 65:64.
    if (!clear(entry, 8, 8) || !clear(entry, 31, 12) || !clear(entry, 65, 64)) return undefined;
    if (bits(entry, 4, 4) === 1 || bits(entry, 5, 5) === 0 || bits(entry, 7, 7) === 1) return undefined;
    const address = Number(BigInt.asUintN(hostBits, (entry >> 66n) << 2n));
    return { stores: { address, value: bits(entry, 63, 32) } };
  }
  return undefined;
}

export interface SmmuShape {
  readonly stage1: boolean;
  readonly stage2: boolean;
  readonly range: boolean;
}

const GRANULES = [12, 12, 14, 16] as const;

/** A 128-bit command of an SMMU. */
export function smmuEffect(entry: bigint, { stage1, stage2, range }: SmmuShape): Effect | undefined {
  const opcode = bits(entry, 7, 0);
  // SSec
  if (!clear(entry, 10, 10)) return undefined;
  if (opcode === 0x46) {
    const signal = bits(entry, 13, 12);
    if (signal === 0 || signal === 2) return {};
    const address = Number(BigInt.asUintN(52, (entry >> 66n) << 2n));
    // Without an address the signal is a wire.
    if (signal === 3 || address === 0) return undefined;
    return { stores: { address, value: bits(entry, 63, 32) } };
  }
  const space = stage2 ? bits(entry, 47, 32) : 0;
  const asid = bits(entry, 63, 48);
  if (opcode === 0x10) return stage1 ? { drops: { space, sub: ANY, ...EVERY } } : undefined;
  if (opcode === 0x11) return stage1 ? { drops: { space, sub: asid, ...EVERY } } : undefined;
  if (opcode === 0x28) return stage2 ? { drops: { space, sub: ANY, ...EVERY } } : undefined;
  if (opcode !== 0x12 && opcode !== 0x13 && opcode !== 0x2a) return undefined;
  if (opcode === 0x2a ? !stage2 : !stage1) return undefined;
  const address = opcode === 0x2a ? BigInt.asUintN(52, entry >> 64n) : entry >> 64n;
  const sub = opcode === 0x12 ? asid : ANY;
  const tg = range ? bits(entry, 75, 74) : 0;
  if (tg === 0) return { drops: { space, sub, ...blocks(address, 12) } };
  const [number, scale, ttl] = [bits(entry, 16, 12), bits(entry, 24, 20), bits(entry, 73, 72)];
  // Level 1 of 16 KiB granules has no leaves: TTL 1 is as 0, and without TTL, NUM and SCALE the
  // command is ILLEGAL.
  if (number === 0 && scale === 0 && (ttl === 0 || (tg === 2 && ttl === 1))) return undefined;
  return { drops: { space, sub, ...blocks(address, GRANULES[tg], BigInt(number + 1) << BigInt(scale)) } };
}
