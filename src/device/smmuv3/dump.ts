/**
 * The SMMU as a tree for people: registers with named bits, then streams → context descriptors →
 * translations.
 */

import { NO_PASID } from '../../base/ids.js';
import { hex, hex64 } from '../../base/u64.js';
import type { GuestMemory } from '../../memory/guest-memory.js';
import { eventName } from '../../spec/smmuv3/events.js';
import { STRTAB_BASE, STRTAB_BASE_CFG, STRTAB_FMT } from '../../spec/smmuv3/registers.js';
import { CD, STE, STE_CONFIG, STE_CONFIG_BIT } from '../../spec/smmuv3/structures.js';
import { fieldText, leavesNode } from '../dump-text.js';
import { ACCESS, type DumpNode, type DumpOptions } from '../iommu.js';
import { KIND, Leaves } from '../leaves.js';
import type { RegisterFile } from '../registers.js';
import type { SmmuConfig } from './config.js';
import { ABORTED, Fault, OK } from './fault.js';
import type { SmmuFormats } from './formats.js';
import type { SmmuLookup } from './lookup.js';
import type { Stalls } from './stalls.js';
import { Stream } from './stream.js';

/** Tables can be made to look endless; a person has seen enough after so many. */
const MOST_STREAMS = 512;
const MOST_SUBSTREAMS = 64;
/** SubstreamIDs that one dump looks at: context descriptor tables may claim to be large. */
const MOST_LOOKS = 1 << 17;

/** Names of values, by field. */
const VALUES: Readonly<Record<string, readonly string[]>> = {
  Config: ['abort', 'abort', 'abort', 'abort', 'bypass', 'stage 1', 'stage 2', 'nested'],
  S1Fmt: ['linear', '4 KiB leaves', '64 KiB leaves', 'reserved'],
  S1DSS: ['terminate', 'bypass', 'SSID 0', 'reserved'],
  FMT: ['linear', '2-level', 'reserved', 'reserved'],
};

export class SmmuDumper {
  readonly #config: SmmuConfig;
  readonly #file: RegisterFile;
  readonly #lookup: SmmuLookup;
  readonly #stalls: Stalls;
  readonly #stream: Stream;
  readonly #fault = new Fault();
  readonly #leaves: Leaves;
  #looks = 0;

  constructor(
    config: SmmuConfig,
    formats: SmmuFormats,
    file: RegisterFile,
    lookup: SmmuLookup,
    stalls: Stalls,
    memory: GuestMemory,
  ) {
    this.#config = config;
    this.#file = file;
    this.#lookup = lookup;
    this.#stalls = stalls;
    this.#stream = new Stream(formats.none);
    this.#leaves = new Leaves(memory);
  }

  /** See {@link SurveyView.dump}. Reads tables afresh, changes nothing. */
  dump(options: DumpOptions): DumpNode[] {
    const nodes: DumpNode[] = [];
    this.#looks = 0;
    if (options.registers) nodes.push({ label: 'registers', children: this.#registers() });
    if (this.#stalls.held > 0) nodes.push(this.#stalled(options));
    if (options.tables) nodes.push(this.#streamTable(options));
    return nodes;
  }

  #stalled(options: DumpOptions): DumpNode {
    const children = this.#stalls
      .list()
      .filter(({ sid }) => options.rid === undefined || options.rid === sid)
      .map(({ stag, sid, ssid, access, lo, hi, state }) => ({
        label: `STAG ${hex(stag)} ${ridText(sid)}`,
        fields: {
          ...(ssid === NO_PASID ? {} : { SubstreamID: hex(ssid) }),
          page: hex64(lo, hi),
          access: (access & ACCESS.WRITE) === 0 ? 'read' : 'write',
        },
        note: state,
      }));
    return { label: 'stalled transactions', children };
  }

  #registers(): DumpNode[] {
    const words = this.#file.visible;
    return this.#file.declared.map((register) => {
      const base = register.offset >> 2;
      const raw =
        register.width === 64
          ? hex64(words[base], words[base + 1])
          : `0x${words[base].toString(16).padStart(8, '0')}`;
      return { label: register.name, raw, fields: fieldText(register, words, base, VALUES) };
    });
  }

  #streamTable(options: DumpOptions): DumpNode {
    const { words } = this.#file;
    const configuration = STRTAB_BASE_CFG.offset >> 2;
    const base = STRTAB_BASE.get.ADDR(words, STRTAB_BASE.offset >> 2);
    const twoLevel = STRTAB_BASE_CFG.get.FMT(words, configuration) === STRTAB_FMT.TWO_LEVEL;
    const label = `${twoLevel ? '2-level' : 'linear'} stream table at ${hex(base)}`;
    const children: DumpNode[] = [];
    const count = 2 ** Math.min(16, STRTAB_BASE_CFG.get.LOG2SIZE(words, configuration));
    let left = 0;
    for (let sid = 0; sid < count; sid++) {
      if (options.rid !== undefined && options.rid !== sid) continue;
      if (!this.#lookup.peekStream(sid, this.#fault)) continue;
      const first = sid;
      if (options.rid === undefined) while (this.#aborts(sid) && this.#aborts(sid + 1)) sid++;
      if (children.length >= MOST_STREAMS) left += sid - first + 1;
      else if (sid > first) children.push(abortingStreams(first, sid));
      else if (this.#lookup.peekStream(sid, this.#fault)) children.push(this.#streamNode(sid, options));
    }
    return left === 0 ? { label, children } : { label, children, note: `${left} more streams` };
  }

  /** Whether there is an entry for the stream that aborts: drivers fill whole tables with such. */
  #aborts(sid: number): boolean {
    if (!this.#lookup.peekStream(sid, this.#fault)) return false;
    const ste = this.#lookup.lastStreamEntry;
    return STE.get.V(ste) === 1 && STE.get.Config(ste) < STE_CONFIG.BYPASS;
  }

  #streamNode(sid: number, options: DumpOptions): DumpNode {
    const ste = Uint32Array.from(this.#lookup.lastStreamEntry);
    const head = { label: `STE ${ridText(sid)}`, raw: rawText(ste), fields: fieldText(STE, ste, 0, VALUES) };
    const children = [this.#substream(sid, NO_PASID, options)];
    if ((STE.get.Config(ste) & STE_CONFIG_BIT.S1) === 0 || this.#config.ssidBits === 0) {
      return { ...head, children };
    }
    const last = Math.min(2 ** STE.get.S1CDMax(ste) - 1, 2 ** this.#config.ssidBits - 1);
    let left = 0;
    for (let ssid = 1; ssid <= last; ssid++) {
      if (++this.#looks > MOST_LOOKS) {
        return { ...head, children, note: `gave up looking for substreams at ${hex(ssid)}` };
      }
      if (this.#lookup.resolve(sid, ssid, false, this.#stream, this.#fault) !== OK) continue;
      if (children.length <= MOST_SUBSTREAMS) children.push(this.#substream(sid, ssid, options));
      else left++;
    }
    return left === 0 ? { ...head, children } : { ...head, children, note: `${left} more substreams` };
  }

  /** The address space of a stream or substream; or why there is none. */
  #substream(sid: number, ssid: number, options: DumpOptions): DumpNode {
    const stream = this.#stream;
    const outcome = this.#lookup.resolve(sid, ssid, false, stream, this.#fault);
    const label = ssid === NO_PASID ? 'no SubstreamID' : `SubstreamID ${hex(ssid)}`;
    if (outcome === ABORTED) return { label, note: 'aborted' };
    if (outcome !== OK) return { label, note: eventName(outcome) };
    if (stream.kind === KIND.PASS_THROUGH) return { label, note: 'bypass' };
    const children: DumpNode[] = [];
    if (stream.kind === KIND.SECOND) children.push(this.#translations(options));
    else {
      if (stream.aim(0)) children.push(this.#translations(options));
      if (stream.aim(-1)) children.push(this.#translations(options));
    }
    if (stream.kind === KIND.SECOND) return { label, children };
    const cd = Uint32Array.from(this.#lookup.lastContext);
    return { label, raw: rawText(cd), fields: fieldText(CD, cd, 0, VALUES), children };
  }

  /** Leaf ranges of the tables that the stream is aimed at. */
  #translations(options: DumpOptions): DumpNode {
    const stream = this.#stream;
    const leaves = this.#leaves;
    leaves.start(stream, 0, stream.kind !== KIND.SECOND && stream.firstFormat.upper !== 0 ? -1 << 23 : 0);
    return leavesNode(kindText(stream), leaves, options.maxLeaves);
  }
}

function kindText(stream: Stream): string {
  const first = `${stream.firstFormat.name} at ${hex(stream.firstRoot)}`;
  const second = `${stream.secondFormat.name} at ${hex(stream.secondRoot)}`;
  const tags = `VMID ${stream.vmid}`;
  if (stream.kind === KIND.SECOND) return `${second}, ${tags}`;
  const asid = `${tags}, ASID ${stream.asid}`;
  return stream.kind === KIND.FIRST ? `${first}, ${asid}` : `${first} on ${second}, ${asid}`;
}

function abortingStreams(first: number, last: number): DumpNode {
  return { label: `STE ${ridText(first)}-${ridText(last)}`, note: `${last - first + 1} entries: abort` };
}

/** bus:device.function. */
function ridText(rid: number): string {
  return `${hexByte(rid >> 8)}:${hexByte((rid >> 3) & 31)}.${rid & 7}`;
}

function hexByte(value: number): string {
  return value.toString(16).padStart(2, '0');
}

/** 64-bit words, the highest that is not zero first. */
function rawText(words: Uint32Array): string {
  const parts: string[] = [];
  for (let index = words.length - 2; index >= 0; index -= 2) {
    if (parts.length > 0 || index === 0 || (words[index] | words[index + 1]) !== 0)
      parts.push(hex64(words[index], words[index + 1]));
  }
  return parts.join(' ');
}
