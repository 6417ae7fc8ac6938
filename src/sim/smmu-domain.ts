import { ADDRESS_BITS } from '../spec/smmuv3/registers.js';
import { type CD, type STE, TG0_GRANULE, TG1_GRANULE } from '../spec/smmuv3/structures.js';
import type { GuestPageTable } from './page-table.js';
import type { Values } from './structure.js';

export interface DomainOptions {
  /** log2; default the smallest that the unit has. */
  readonly granule?: number;
  /** 64 − TxSZ. Default 48, or the output size of the unit where that is less. */
  readonly inputBits?: number;
  /** Stage 1: through TTB1 instead of TTB0. */
  readonly upper?: boolean;
  /** Stage-1 leaves hold for every ASID. */
  readonly global?: boolean;
  /** CD.S or STE.S2S: faults stall. */
  readonly stall?: boolean;
  /** CD.R or STE.S2R. Default true. */
  readonly record?: boolean;
  /** HA, and with 'dirty' HD. */
  readonly hardware?: 'access' | 'dirty';
  readonly topByteIgnored?: boolean;
}

/** One address space, and the tags and tables by which the unit knows it. */
export interface SmmuDomain {
  readonly kind: 'first' | 'second' | 'nested' | 'bypass';
  readonly options: DomainOptions;
  /** The table that map and unmap edit: stage 2, or stage 1 of first and nested. */
  readonly table: GuestPageTable | undefined;
  /** Nested only: the stage 2 below. */
  readonly parent: SmmuDomain | undefined;
  readonly vmid: number;
  readonly asid: number;
  /** log2 */
  readonly granule: number;
  readonly inputBits: number;
  /**
   * Streams that use it, because devices that translate ahead are invalidated by stream. −1:
   * without SubstreamID.
   */
  readonly users: { readonly sid: number; readonly ssid: number }[];
  /** Where the stage 2 below, if any, has the table at this guest-physical address. */
  readonly tableAddress: (gpa: number) => bigint;
}

const bit = (on: boolean | undefined): number => (on === true ? 1 : 0);

/** A context descriptor for the domain's stage 1. IHI 0070 §5.4 */
export function firstStageFields(domain: SmmuDomain, outputBits: number): Values<typeof CD> {
  const { options, table, granule, inputBits, asid } = domain;
  if (table === undefined) throw new Error('simulated guest: a bypass has no context descriptor');
  const { upper, hardware, topByteIgnored } = options;
  const size = 64 - inputBits;
  const root = Number(table.rootAddress);
  const half = upper
    ? { EPD0: 1, T1SZ: size, TG1: indexOf(TG1_GRANULE, granule), IR1: 1, OR1: 1, SH1: 3, TTB1: root }
    : { EPD1: 1, T0SZ: size, TG0: indexOf(TG0_GRANULE, granule), IR0: 1, OR0: 1, SH0: 3, TTB0: root };
  return {
    V: 1,
    AA64: 1,
    A: 1,
    R: bit(options.record ?? true),
    S: bit(options.stall),
    IPS: ADDRESS_BITS.indexOf(outputBits),
    HA: bit(hardware !== undefined),
    HD: bit(hardware === 'dirty'),
    TBI0: bit(topByteIgnored),
    TBI1: bit(topByteIgnored),
    ASID: asid,
    ...half,
  };
}

/** The stage-2 fields of a stream table entry. IHI 0070 §5.2 */
export function secondStageFields(domain: SmmuDomain, outputBits: number): Values<typeof STE> {
  const { options, table, granule, inputBits, vmid } = domain;
  if (table === undefined) throw new Error('simulated guest: a bypass has no stage 2');
  // S2SL0 counts from the last level that it can start at: 2 with 4 KiB, 3 with larger granules.
  const startLevel = 4 - table.levels;
  return {
    S2VMID: vmid,
    S2T0SZ: 64 - inputBits,
    S2SL0: (granule === 12 ? 2 : 3) - startLevel,
    S2IR0: 1,
    S2OR0: 1,
    S2SH0: 3,
    S2TG: indexOf(TG0_GRANULE, granule),
    S2PS: ADDRESS_BITS.indexOf(outputBits),
    S2AA64: 1,
    S2R: bit(options.record ?? true),
    S2S: bit(options.stall),
    S2HA: bit(options.hardware !== undefined),
    S2HD: bit(options.hardware === 'dirty'),
    S2TTB: Number(table.rootAddress),
  };
}

function indexOf(granules: readonly number[], granule: number): number {
  return granules.indexOf(granule);
}
