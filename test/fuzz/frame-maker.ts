import { SimHost } from '../../src/host/sim/sim-host.js';
import { bodyCodec, type Codec } from '../../src/wire/codec.js';
import { FEATURE, FLAG, HEADER_BYTES, MESSAGE, NOTIFY, VERSION } from '../../src/wire/frame.js';
import { BodyWriter } from '../../src/wire/writer.js';
import type { Rng } from './rng.js';

/** Messages of the front channel that it makes. */
export const FRONT = [
  MESSAGE.MEM_ADD,
  MESSAGE.MEM_REMOVE,
  MESSAGE.REG_WRITE,
  MESSAGE.REG_READ,
  MESSAGE.TRANSLATE,
  MESSAGE.DEVICE_ADDED,
  MESSAGE.DEVICE_REMOVED,
  MESSAGE.RESET,
  MESSAGE.REPLAY,
  MESSAGE.NOTIFIER,
  MESSAGE.PAGE_REQUEST,
  MESSAGE.TABLE_WRITE,
  MESSAGE.HOST_LISTEN,
  MESSAGE.HOST_SETTLE,
  MESSAGE.QUEUE_RAN,
  MESSAGE.REMAP_INTERRUPT,
  MESSAGE.HOST_EVENT,
  MESSAGE.HOST_PAGE_REQUEST,
  MESSAGE.HOST_PASID_REFUSED,
] as const;

/** Registers that do something when they are written, within what both models have. */
const VTD_OFFSETS = [0x18, 0x20, 0x28, 0x34, 0x88, 0x90, 0xf8];
const SMMU_OFFSETS = [0x20, 0x44, 0x64, 0x80, 0x88, 0x90, 0x98, 0x9c];

/** Messages whose feature may be missing. */
const FEATURE_OF: { readonly [type: number]: number } = {
  [MESSAGE.MEM_ADD]: FEATURE.SHARED_MEMORY | FEATURE.REMOTE_MEMORY,
  [MESSAGE.MEM_REMOVE]: FEATURE.SHARED_MEMORY | FEATURE.REMOTE_MEMORY,
  [MESSAGE.REPLAY]: FEATURE.NOTIFIERS,
  [MESSAGE.NOTIFIER]: FEATURE.NOTIFIERS,
  [MESSAGE.PAGE_REQUEST]: FEATURE.PRI,
  [MESSAGE.TABLE_WRITE]: FEATURE.TRACKING,
  [MESSAGE.HOST_LISTEN]: FEATURE.HOST_BATCH,
  [MESSAGE.HOST_SETTLE]: FEATURE.HOST_BATCH,
  [MESSAGE.QUEUE_RAN]: FEATURE.QUEUES,
  [MESSAGE.REMAP_INTERRUPT]: FEATURE.INTERRUPT_REMAPPING,
  [MESSAGE.HOST_EVENT]: FEATURE.NESTING,
  [MESSAGE.HOST_PAGE_REQUEST]: FEATURE.NESTING,
  [MESSAGE.HOST_PASID_REFUSED]: FEATURE.NESTING,
};

/** Requests that are answered at once. */
const ANSWERED: ReadonlySet<number> = new Set([
  MESSAGE.HELLO,
  MESSAGE.MEM_ADD,
  MESSAGE.REG_READ,
  MESSAGE.TRANSLATE,
  MESSAGE.REPLAY,
  MESSAGE.HOST_DEVICE,
  MESSAGE.REMAP_INTERRUPT,
]);

/** Requests that are answered when the host has done what they lead to. */
const ANSWERED_LATER: ReadonlySet<number> = new Set([
  MESSAGE.MEM_REMOVE,
  MESSAGE.RESET,
  MESSAGE.TABLE_WRITE,
  MESSAGE.HOST_SETTLE,
]);

/** When a frame on the front channel is answered. */
export function replyDue(type: number, flags: number, features: number): 'at once' | 'later' | 'never' {
  if (ANSWERED.has(type)) return 'at once';
  if (ANSWERED_LATER.has(type)) return 'later';
  const asked = type === MESSAGE.REG_WRITE && (flags & FLAG.NEED_REPLY) !== 0;
  return asked && (features & FEATURE.WRITE_REPLY) !== 0 ? 'at once' : 'never';
}

const buffer = new Uint8Array(HEADER_BYTES + 65536);
const writer = new BodyWriter();

/** One frame's bytes. */
export function frameBytes<T extends object>(
  type: number,
  flags: number,
  id: number,
  codec: Codec<T>,
  message: T,
): Uint8Array {
  writer.start(buffer, HEADER_BYTES);
  codec.encode(message, writer);
  const size = writer.position - HEADER_BYTES;
  const header = Uint32Array.of(type, flags, size, id);
  buffer.set(new Uint8Array(header.buffer), 0);
  return buffer.slice(0, HEADER_BYTES + size);
}

interface MadeFrame {
  readonly type: number;
  readonly bytes: Uint8Array;
  /** True when a descriptor belongs to it. */
  readonly descriptor: boolean;
}

/**
 * The next message. Those that end the session are rare: removing a device that is not there,
 * listening for one that is not shadowed, and messages whose feature is not in force.
 */
function pickType(rng: Rng, features: number): number {
  const type = rng.pick(FRONT);
  const feature = FEATURE_OF[type];
  const missing = feature !== undefined && (features & feature) === 0;
  const ending = type === MESSAGE.DEVICE_REMOVED || type === MESSAGE.HOST_LISTEN;
  return (missing || ending) && rng.chance(0.98) ? MESSAGE.TRANSLATE : type;
}

/** Fields that may have some values only, mostly within them. */
function fitFields(rng: Rng, type: number, features: number, message: Record<string, unknown>): void {
  const mostly = (): boolean => rng.chance(0.998);
  switch (type) {
    case MESSAGE.TRANSLATE:
    case MESSAGE.REPLAY:
    case MESSAGE.PAGE_REQUEST:
      if (mostly()) message['rid'] = rng.below(0x10000);
      if (mostly()) message['pasid'] = rng.chance(0.5) ? 0 : rng.below(0x100000);
      if (type === MESSAGE.PAGE_REQUEST && mostly()) message['group'] = rng.below(0x200);
      if (type !== MESSAGE.TRANSLATE) return;
      if (mostly()) message['kind'] = features & FEATURE.ATS ? rng.below(3) : 0;
      if (rng.chance(0.5)) message['size'] = rng.pick([0, 1, 4, 8, 4096]);
      if (mostly()) message['mayStall'] = (features & FEATURE.STALLS) !== 0 && rng.chance(0.3);
      return;
    case MESSAGE.REMAP_INTERRUPT:
      if (mostly()) message['rid'] = rng.below(0x10000);
      if (mostly()) Object.assign(message, { addressHi: 0, addressLo: 0xfee0_0000 + rng.below(0x40000) * 4 });
      if (rng.chance(0.8)) message['data'] = rng.below(0x10000);
      return;
    case MESSAGE.MEM_ADD:
      if (mostly() && !(features & FEATURE.REMOTE_MEMORY)) message['shared'] = true;
      if (mostly() && !(features & FEATURE.SHARED_MEMORY)) message['shared'] = false;
      return;
    case MESSAGE.DEVICE_ADDED:
      Object.assign(message, { device: rng.below(8), rid: rng.below(0x10000) });
      return;
    case MESSAGE.NOTIFIER:
    case MESSAGE.DEVICE_REMOVED: {
      // Mostly of a device that is there: see firstFrames.
      const removed = type === MESSAGE.DEVICE_REMOVED ? 4 : 0;
      Object.assign(message, { device: removed + rng.below(4), flags: rng.below(4) });
      if (!mostly()) message['device'] = rng.u32();
      if (!mostly()) message['flags'] = rng.u32();
      return;
    }
    case MESSAGE.REG_WRITE:
    case MESSAGE.REG_READ:
      message['size'] = rng.pick([1, 2, 4, 4, 8, 8, 3, 16]);
      if (rng.chance(0.9)) {
        const known = rng.pick(rng.chance(0.6) ? VTD_OFFSETS : SMMU_OFFSETS);
        message['offset'] = rng.chance(0.1) ? rng.below(0x400) : known;
      }
      return;
    case MESSAGE.TABLE_WRITE:
      if (mostly()) Object.assign(message, { hi: 0, size: rng.pick([1, 4, 8, 16, 4096]) });
      return;
    case MESSAGE.HOST_LISTEN:
      if (rng.chance(0.9)) Object.assign(message, LISTENED, { device: rng.below(4) });
      return;
    default:
  }
}

/**
 * A frame that the front channel takes, its fields at random: often ones that mean something with
 * these features.
 */
export function plausibleFrame(rng: Rng, id: number, features: number): MadeFrame {
  const type = pickType(rng, features);
  const codec = bodyCodec(type as typeof MESSAGE.TRANSLATE) as unknown as Codec<Record<string, unknown>>;
  const message = codec.create();
  for (const field of Object.keys(message)) {
    const value = message[field];
    if (typeof value === 'number') message[field] = number(rng);
    else if (typeof value === 'boolean') message[field] = rng.chance(0.3);
    else if (typeof value === 'string') message[field] = 'x'.repeat(rng.below(20));
  }
  fitFields(rng, type, features, message);
  // Whether a reply is asked for matters to REG_WRITE only; the others get one, or none, all the
  // same.
  const flags = 1 | (rng.chance(replyDue(type, 0, features) !== 'never' ? 0.9 : 0.2) ? FLAG.NEED_REPLY : 0);
  const descriptor = type === MESSAGE.MEM_ADD && message['shared'] === true;
  return { type, bytes: frameBytes(type, flags, id, codec, message), descriptor };
}

/** The pages of 1 GiB. */
const LISTENED = { firstLo: 0, firstHi: 0, lastLo: 2 ** 30 - 1, lastHi: 0 };

/** A host that an assigned device may have, by the guest's model, as HOST_DEVICE tells of it. */
const HARDWARE = {
  vtd: new SimHost({ kind: 'vtd3' }).driver.hardwareInfo(),
  smmuv3: new SimHost({ kind: 'smmuv3' }).driver.hardwareInfo(),
};

/**
 * Devices with objects of the host: to be sent after {@link firstFrames}, where `NESTING` is in
 * force.
 */
export function hostFrames(rng: Rng, model: keyof typeof HARDWARE): Uint8Array[] {
  const codec = bodyCodec(MESSAGE.HOST_DEVICE);
  const { type: infoType, info } = HARDWARE[model];
  return [1, 2].map((device) => {
    const what = { kind: rng.below(2), container: 0, abilities: rng.chance(0.7) ? 0x3f : rng.below(64) };
    const limits = { pasidBits: rng.below(21), ranges: [], mappings: rng.pick([0, 0, 1, 100]) };
    const message = { device, ...what, infoType, info, ...limits, batches: rng.chance(0.1) };
    return frameBytes(MESSAGE.HOST_DEVICE, VERSION | FLAG.NEED_REPLY, 0, codec, message);
  });
}

/**
 * Devices that notifiers may be asked for, one of them shadowed where that is possible; to be sent
 * after HELLO.
 */
export function firstFrames(features: number): Uint8Array[] {
  const post = <T extends object>(type: number, codec: Codec<T>, message: T) =>
    frameBytes(type, VERSION, 0, codec, message);
  const added = bodyCodec(MESSAGE.DEVICE_ADDED);
  const frames = [0, 1, 2, 3].map((device) =>
    post(MESSAGE.DEVICE_ADDED, added, { device, rid: device * 8, name: '' }),
  );
  const wanted = FEATURE.NOTIFIERS | FEATURE.HOST_BATCH;
  if ((features & wanted) !== wanted) return frames;
  frames.push(
    post(MESSAGE.NOTIFIER, bodyCodec(MESSAGE.NOTIFIER), { device: 0, flags: NOTIFY.MAP | NOTIFY.UNMAP }),
  );
  frames.push(post(MESSAGE.HOST_LISTEN, bodyCodec(MESSAGE.HOST_LISTEN), { device: 0, ...LISTENED }));
  return frames;
}

function number(rng: Rng): number {
  switch (rng.below(5)) {
    case 0:
      return rng.below(8);
    case 1:
      return rng.below(0x100) * 4096;
    case 2:
      return 2 ** rng.below(32);
    case 3:
      return 0xffff_ffff;
    default:
      return rng.u32();
  }
}

/** The frame with something wrong: a bit, its length, its header, or all of it. */
export function spoiled(rng: Rng, frame: Uint8Array): Uint8Array {
  const bytes = frame.slice();
  switch (rng.below(6)) {
    case 0:
      bytes[rng.below(bytes.length)] ^= 1 << rng.below(8);
      return bytes;
    case 1:
      return bytes.subarray(0, rng.below(bytes.length));
    case 2: {
      const size = rng.pick([0, 1, 65535, 65536, 65537, 0xffff_ffff, rng.below(100)]);
      bytes.set(new Uint8Array(Uint32Array.of(size).buffer), 8);
      return bytes;
    }
    case 3:
      bytes.set(new Uint8Array(Uint32Array.of(rng.pick([0, 1, 64, 65, 68, 127, 128, rng.u32()])).buffer), 0);
      return bytes;
    case 4:
      for (let i = HEADER_BYTES; i < bytes.length; i++) bytes[i] = rng.below(256);
      return bytes;
    default:
      return Uint8Array.from({ length: rng.below(200) }, () => rng.below(256));
  }
}
