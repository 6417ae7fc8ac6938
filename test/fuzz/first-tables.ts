/**
 * A unit that is switched on, with tables and commands in the first pages of memory: so that random
 * frames find something there.
 */
import type { GuestMemory } from '../../src/memory/guest-memory.js';
import { bodyCodec } from '../../src/wire/codec.js';
import { MESSAGE, VERSION } from '../../src/wire/frame.js';
import { frameBytes } from './frame-maker.js';

/** Requester ids of the devices that are there from the beginning. */
const RIDS = [0, 8, 16, 24];
const ROOT = 0x1000;
const CONTEXT = 0x2000;
const QUEUE = 0x3000;
const QUEUE_ENTRIES = 256;
const TABLES = [0x1_0000, 0x1_1000, 0x1_2000, 0x1_3000];
const LEAVES = 16;
const DATA = 0x8_0000;

type Model = 'vtd' | 'smmuv3';

/** Fills memory; tables of the second stage, for every device the same ones. */
export function putTables(ram: GuestMemory, model: Model): void {
  const vtd = model === 'vtd';
  // IHI 0070 and DDI 0487: type 3, the Access flag and S2AP at leaves. VT-d §9.8: R and W.
  const leaf = vtd ? 3 : 3 | (3 << 6) | (1 << 10);
  // 48 bits and four levels; 39 and three.
  const tables = vtd ? TABLES : TABLES.slice(1);
  for (let level = 0; level + 1 < tables.length; level++) {
    ram.store64(tables[level] as number, (tables[level + 1] as number) | 3, 0);
  }
  for (let page = 0; page < LEAVES; page++) {
    ram.store64((tables.at(-1) as number) + page * 8, (DATA + page * 4096) | leaf, 0);
  }
  for (const rid of RIDS) {
    if (vtd) putContext(ram, rid, tables[0] as number);
    else putStream(ram, rid, tables[0] as number);
  }
  if (vtd) ram.store64(ROOT, CONTEXT | 1, 0);
  for (let index = 0; index < QUEUE_ENTRIES; index++) putCommand(ram, model, QUEUE + index * 16, index);
}

/** VT-d §9.3: present, second stage, 48 bits, domain 1. */
function putContext(ram: GuestMemory, rid: number, root: number): void {
  ram.store64(CONTEXT + rid * 16, root | 1, 0);
  ram.store64(CONTEXT + rid * 16 + 8, 2 | (1 << 8), 0);
}

/** IHI 0070 §5.2: valid, stage 2; VMID 1, 39 bits from level 1, 48 bits out, AArch64. */
function putStream(ram: GuestMemory, rid: number, root: number): void {
  const at = ROOT + rid * 64;
  ram.store64(at, 1 | (6 << 1), 0);
  ram.store64(at + 16, 1, 25 | (1 << 6) | (5 << 16) | (1 << 19));
  ram.store64(at + 24, root, 0);
}

/** Invalidations of everything; each fourth one waits for what went before. */
function putCommand(ram: GuestMemory, model: Model, at: number, index: number): void {
  const kind = index % 4;
  if (model === 'vtd') {
    // VT-d §6.5.2: context cache, IOTLB, global; wait with a status to be written.
    const globally = 1 << 4;
    const wait = 5 | (1 << 5);
    ram.store64(at, kind === 3 ? wait : (1 + (kind & 1)) | globally, 0);
    ram.store64(at + 8, kind === 3 ? 0x4000 : 0, 0);
  } else {
    // IHI 0070 §4: CMD_CFGI_ALL, CMD_TLBI_NSNH_ALL, CMD_SYNC.
    ram.store64(at, [0x04, 0x30, 0x30, 0x46][kind] as number, 0);
    ram.store64(at + 8, kind === 0 ? 31 : 0, 0);
  }
}

/** Register writes that switch the unit on. */
export function startFrames(model: Model): Uint8Array[] {
  const writes: readonly (readonly [offset: number, size: number, lo: number])[] =
    model === 'vtd'
      ? [
          // RTADDR, SRTP, IQA, QIE, TE. VT-d §11.4
          [0x20, 8, ROOT],
          [0x18, 4, 1 << 30],
          [0x90, 8, QUEUE],
          [0x18, 4, 1 << 26],
          [0x18, 4, (1 << 31) | (1 << 26)],
        ]
      : [
          // STRTAB_BASE, its CFG, CMDQ_BASE, CR0. IHI 0070 §6.3
          [0x80, 8, ROOT],
          [0x88, 4, 5],
          [0x90, 8, QUEUE | 8],
          [0x20, 4, 1 | 8],
        ];
  const codec = bodyCodec(MESSAGE.REG_WRITE);
  return writes.map(([offset, size, lo]) =>
    frameBytes(MESSAGE.REG_WRITE, VERSION, 0, codec, { offset, size, lo: lo >>> 0, hi: 0 }),
  );
}
