/**
 * The commands of this SMMU, one row each: which units have it, which encodings are legal, what it
 * does, and what the peer may do of it. IHI 0070 chapter 4. A new command is a row here with the
 * function that it names, and a row with its opcode and layout in src/spec/smmuv3/commands.ts.
 */

import { ANY, NO_PASID } from '../../base/ids.js';
import { PAGE_LOG2 } from '../../base/page.js';
import {
  ATC_INV_ALL,
  CMD,
  CMD_ATC_INV,
  CMD_CFGI_CD,
  CMD_CFGI_STE,
  CMD_CFGI_STE_RANGE,
  CMD_PRI_RESP,
  CMD_RESUME,
  CMD_STALL_TERM,
  CMD_SYNC,
  CMD_TLBI,
  CS,
  PRI_RESP,
  RANGE_ALL,
  TLBI_TG_GRANULE,
} from '../../spec/smmuv3/commands.js';
import { type IommuOutputs, PAGE_RESPONSE } from '../iommu.js';
import { type Plain, plainCommands } from '../peer-queue.js';
import { type SmmuConfig, STREAM_ID_BITS } from './config.js';
import type { DeviceInvalidations } from './device-invalidations.js';
import type { SmmuInvalidator } from './invalidation.js';
import { PHYSICAL_HI, plainAsid, plainBlocks, plainSync, plainVmid } from './plain-commands.js';
import type { Stalls } from './stalls.js';

/** What commands act on. */
export interface CommandTarget {
  readonly config: SmmuConfig;
  readonly invalidator: SmmuInvalidator;
  readonly devices: DeviceInvalidations;
  readonly stalls: Stalls;
  readonly outputs: IommuOutputs;
  /** §4.5: while SMMUEN is clear the ATS interface does not work, and its commands are ignored. */
  readonly atsWorks: boolean;
  /** Completes a CMD_SYNC. False while something before it is not complete, or has failed. */
  synchronize(words: Uint32Array): boolean;
  /** The peer has completed a CMD_SYNC. */
  synchronizedByPeer(words: Uint32Array): void;
}

type Run = (target: CommandTarget, words: Uint32Array) => boolean;

/** What a command allows the peer: to carry it out in the store that rings the doorbell. */
interface PeerPart {
  /** The encodings that it may carry out. */
  readonly plain: (config: SmmuConfig, opcode: number) => readonly Plain<string>[];
  /** What is left to do then. */
  readonly ran: (target: CommandTarget, words: Uint32Array) => unknown;
}

export interface Command {
  readonly opcode: number;
  /** Does it. False: not now; the queue stays at it. */
  readonly run: Run;
  /** Units that lack it take it as ILLEGAL. §4.1.3 */
  readonly has: (config: SmmuConfig) => boolean;
  /** Encodings that are not reserved; those that are reserved are ILLEGAL. §7.1 */
  readonly legal: (words: Uint32Array, config: SmmuConfig) => boolean;
  /**
   * It drops configuration or translations, which stall records have to hear of at the next
   * CMD_SYNC.
   */
  readonly invalidates: boolean;
  readonly peer: PeerPart | undefined;
}

const always = (): boolean => true;
const stage1 = (config: SmmuConfig): boolean => config.stage1;
const stage2 = (config: SmmuConfig): boolean => config.stage2;
const ats = (config: SmmuConfig): boolean => config.ats;
const pri = (config: SmmuConfig): boolean => config.pri;
const stall = (config: SmmuConfig): boolean => config.stall;

/** A row. All rows have the same shape, which keeps the look-up in the queue cheap. */
function command(opcode: number, run: Run, rest: Partial<Command> = {}): Command {
  const { has = always, legal = always, invalidates = false, peer } = rest;
  return { opcode, run, has, legal, invalidates, peer };
}

/** A CMD_CFGI_ or CMD_TLBI_ command. */
const invalidation = (opcode: number, run: Run, rest: Partial<Command> = {}): Command =>
  command(opcode, run, { ...rest, invalidates: true });

/** A TLB invalidation that the peer may carry out; the model's own TLB then drops the same. */
const plainInvalidation = (
  opcode: number,
  run: Run,
  plain: PeerPart['plain'],
  rest: Partial<Command>,
): Command => invalidation(opcode, run, { ...rest, peer: { plain, ran: run } });

const COMMANDS: readonly Command[] = [
  command(CMD.PREFETCH_CONFIG, ignored),
  command(CMD.PREFETCH_ADDR, ignored),
  invalidation(CMD.CFGI_STE, cfgiSte),
  invalidation(CMD.CFGI_STE_RANGE, cfgiSteRange),
  invalidation(CMD.CFGI_CD, cfgiCd, { has: stage1 }),
  invalidation(CMD.CFGI_CD_ALL, cfgiCdAll, { has: stage1 }),
  plainInvalidation(CMD.TLBI_NH_ALL, tlbiNhAll, plainVmid, { has: stage1 }),
  plainInvalidation(CMD.TLBI_NH_ASID, tlbiNhAsid, plainAsid, { has: stage1 }),
  plainInvalidation(CMD.TLBI_NH_VA, tlbiNhVa, plainBlocks, { has: stage1, legal: range }),
  plainInvalidation(CMD.TLBI_NH_VAA, tlbiNhVaa, plainBlocks, { has: stage1, legal: range }),
  plainInvalidation(CMD.TLBI_S12_VMALL, tlbiS12Vmall, plainVmid, { has: stage2 }),
  plainInvalidation(CMD.TLBI_S2_IPA, tlbiS2Ipa, plainBlocks, { has: stage2, legal: range }),
  // Rare, and so not the peer's.
  invalidation(CMD.TLBI_NSNH_ALL, tlbiNsnhAll),
  command(CMD.ATC_INV, atcInv, { has: ats, legal: atcSize }),
  command(CMD.PRI_RESP, priResp, { has: pri, legal: priResponse }),
  command(CMD.RESUME, resume, { has: stall }),
  command(CMD.STALL_TERM, stallTerm, { has: stall }),
  command(CMD.SYNC, (target, words) => target.synchronize(words), {
    legal: syncSignal,
    peer: { plain: plainSync, ran: (target, words) => target.synchronizedByPeer(words) },
  }),
];

/** Those that a unit has, by opcode. */
export function commandsOf(config: SmmuConfig): readonly (Command | undefined)[] {
  const commands = new Array<Command | undefined>(256).fill(undefined);
  for (const row of COMMANDS) if (row.has(config)) commands[row.opcode] = row;
  return commands;
}

/** Those that the peer may carry out, as {@link QueueDescription.commands}. */
export function plainCommandsOf(config: SmmuConfig): Uint32Array {
  const rows = COMMANDS.filter((row) => row.has(config));
  return plainCommands(rows.flatMap((row) => row.peer?.plain(config, row.opcode) ?? []));
}

// Configuration. §4.2, §4.3

/** Hints (§4.2). Nothing is gained by fetching early here. */
function ignored(): boolean {
  return true;
}

function cfgiSte({ invalidator }: CommandTarget, words: Uint32Array): boolean {
  invalidator.streamTableEntry(CMD_CFGI_STE.get.StreamID(words));
  return true;
}

function cfgiSteRange({ invalidator }: CommandTarget, words: Uint32Array): boolean {
  const exponent = CMD_CFGI_STE_RANGE.get.Range(words);
  const streamId = CMD_CFGI_STE_RANGE.get.StreamID(words);
  invalidator.streamTableRange(streamId, exponent === RANGE_ALL ? 32 : exponent);
  return true;
}

function cfgiCd({ invalidator }: CommandTarget, words: Uint32Array): boolean {
  invalidator.contextDescriptor(CMD_CFGI_CD.get.StreamID(words), CMD_CFGI_CD.get.SubstreamID(words));
  return true;
}

function cfgiCdAll({ invalidator }: CommandTarget, words: Uint32Array): boolean {
  invalidator.contextDescriptors(CMD_CFGI_CD.get.StreamID(words));
  return true;
}

// Translations. §4.4

/**
 * §4.4.1.1: with a granule, TTL, NUM and SCALE must not all be zero. Level 1 has no leaves of 16
 * KiB granules, and is as 0.
 */
function range(words: Uint32Array, config: SmmuConfig): boolean {
  const granule = TLBI_TG_GRANULE[CMD_TLBI.get.TG(words)];
  if (!config.rangeInvalidation || granule === 0) return true;
  const ttl = CMD_TLBI.get.TTL(words);
  const level = granule === 14 && ttl === 1 ? 0 : ttl;
  return (CMD_TLBI.get.NUM(words) | CMD_TLBI.get.SCALE(words) | level) !== 0;
}

/** §4.4: without stage 2 there is one VMID, 0. */
function vmidOf(config: SmmuConfig, words: Uint32Array): number {
  return config.stage2 ? CMD_TLBI.get.VMID(words) : 0;
}

/** Whether it names a range; otherwise a page of 4 KiB. §4.4.1 */
function isRange(config: SmmuConfig, words: Uint32Array): boolean {
  return config.rangeInvalidation && TLBI_TG_GRANULE[CMD_TLBI.get.TG(words)] !== 0;
}

/** log2 of the bytes of its pages. §4.4.1 */
function pageLog2Of(config: SmmuConfig, words: Uint32Array): number {
  return isRange(config, words) ? TLBI_TG_GRANULE[CMD_TLBI.get.TG(words)] : PAGE_LOG2;
}

/** Its pages. §4.4.1.1 */
function pagesOf(config: SmmuConfig, words: Uint32Array): number {
  if (!isRange(config, words)) return 1;
  return (CMD_TLBI.get.NUM(words) + 1) * 2 ** CMD_TLBI.get.SCALE(words);
}

function tlbiNhAll({ config, invalidator }: CommandTarget, words: Uint32Array): boolean {
  invalidator.firstStage(vmidOf(config, words));
  return true;
}

function tlbiNhAsid({ config, invalidator }: CommandTarget, words: Uint32Array): boolean {
  invalidator.asid(vmidOf(config, words), CMD_TLBI.get.ASID(words));
  return true;
}

function tlbiNhVa(target: CommandTarget, words: Uint32Array): boolean {
  return firstStageAddresses(target, words, CMD_TLBI.get.ASID(words));
}

function tlbiNhVaa(target: CommandTarget, words: Uint32Array): boolean {
  return firstStageAddresses(target, words, ANY);
}

function firstStageAddresses(
  { config, invalidator }: CommandTarget,
  words: Uint32Array,
  asid: number,
): boolean {
  const vmid = vmidOf(config, words);
  const log2 = pageLog2Of(config, words);
  const pages = pagesOf(config, words);
  invalidator.addresses(vmid, asid, words[2] & (-1 << log2), words[3] | 0, log2, pages);
  return true;
}

function tlbiS12Vmall({ config, invalidator }: CommandTarget, words: Uint32Array): boolean {
  invalidator.vmid(vmidOf(config, words));
  return true;
}

function tlbiS2Ipa({ config, invalidator }: CommandTarget, words: Uint32Array): boolean {
  const vmid = vmidOf(config, words);
  const log2 = pageLog2Of(config, words);
  const pages = pagesOf(config, words);
  const lo = words[2] & (-1 << log2);
  invalidator.intermediateAddresses(vmid, lo, words[3] & PHYSICAL_HI, log2, pages);
  return true;
}

function tlbiNsnhAll({ invalidator }: CommandTarget): boolean {
  invalidator.everything();
  return true;
}

// Devices: ATS and PRI, §4.5; stalled transactions, §4.7

function atcSize(words: Uint32Array): boolean {
  return CMD_ATC_INV.get.Size(words) <= ATC_INV_ALL;
}

function atcInv(target: CommandTarget, words: Uint32Array): boolean {
  return !target.atsWorks || target.devices.send(words);
}

function priResponse(words: Uint32Array): boolean {
  return CMD_PRI_RESP.get.Resp(words) !== PRI_RESP.RESERVED;
}

/** PCI Express response codes by CMD_PRI_RESP.Resp. §8.3 */
const RESPONSE_CODE: readonly number[] = [
  PAGE_RESPONSE.FAILURE,
  PAGE_RESPONSE.INVALID,
  PAGE_RESPONSE.SUCCESS,
];

function priResp(target: CommandTarget, words: Uint32Array): boolean {
  const streamId = CMD_PRI_RESP.get.StreamID(words);
  if (!target.atsWorks || streamId >= 2 ** STREAM_ID_BITS) return true;
  const substream = CMD_PRI_RESP.get.SSV(words) === 1 && target.config.ssidBits > 0;
  const substreamId = substream ? CMD_PRI_RESP.get.SubstreamID(words) : NO_PASID;
  const code = RESPONSE_CODE[CMD_PRI_RESP.get.Resp(words)];
  target.outputs.pageResponse(streamId, substreamId, CMD_PRI_RESP.get.PRGIndex(words), code);
  return true;
}

function resume({ stalls }: CommandTarget, words: Uint32Array): boolean {
  const { get } = CMD_RESUME;
  stalls.resume(get.StreamID(words), get.STAG(words), get.Ac(words) === 1);
  return true;
}

function stallTerm({ stalls }: CommandTarget, words: Uint32Array): boolean {
  stalls.terminate(CMD_STALL_TERM.get.StreamID(words));
  return true;
}

function syncSignal(words: Uint32Array): boolean {
  return CMD_SYNC.get.CS(words) !== CS.RESERVED;
}
