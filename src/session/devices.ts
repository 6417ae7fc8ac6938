/**
 * The devices behind the IOMMU, as the bridge names them: handles, requester ids, wishes to be
 * notified.
 */
import { CodedError } from '../base/errors.js';
import { plainName } from '../base/text.js';
import { NOTIFY } from '../wire/frame.js';

/** One PCI segment has this many functions; a peer with more has gone wrong. */
const MAX_DEVICES = 65536;
/** Names are for people; longer ones are cut. */
const MAX_NAME = 256;

interface Device {
  readonly device: number;
  rid: number;
  /** Fit to be shown. */
  name: string;
  /** `NOTIFY` bits. */
  flags: number;
}

export class DeviceTable {
  readonly #devices = new Map<number, Device>();
  /** Requester ids of devices with notifiers, without repetition; made again after a change. */
  #rids: number[] = [];
  #stale = false;
  /** Devices that want MAP events are served by the shadow, and by no invalidation. */
  shadowing = false;

  /** Adds a device, or renames and renumbers one. Throws `BAD_ARGUMENT`. */
  add(device: number, rid: number, name: string): void {
    if (rid > 0xffff) throw new CodedError('BAD_ARGUMENT', `device ${device}: requester id ${rid}`);
    const known = this.#devices.get(device);
    const shown = plainName(name, MAX_NAME);
    if (known !== undefined) {
      known.rid = rid;
      known.name = shown;
    } else {
      if (this.#devices.size >= MAX_DEVICES)
        throw new CodedError('BAD_ARGUMENT', `more than ${MAX_DEVICES} devices`);
      this.#devices.set(device, { device, rid, name: shown, flags: 0 });
    }
    this.#stale = true;
  }

  /** Throws `OUT_OF_ORDER` for a device that was not added. */
  remove(device: number): void {
    if (!this.#devices.delete(device)) throw new CodedError('OUT_OF_ORDER', `device ${device} was not added`);
    this.#stale = true;
  }

  /** Throws `OUT_OF_ORDER` for a device that was not added, `BAD_ARGUMENT` for unknown flags. */
  notify(device: number, flags: number): void {
    const known = this.#devices.get(device);
    if (known === undefined) throw new CodedError('OUT_OF_ORDER', `device ${device} was not added`);
    if ((flags & ~(NOTIFY.UNMAP | NOTIFY.MAP | NOTIFY.DEVICE_IOTLB)) !== 0) {
      throw new CodedError('BAD_ARGUMENT', `notifier flags 0x${flags.toString(16)}`);
    }
    known.flags = flags;
    this.#stale = true;
  }

  /** Requester ids of the devices that want to be notified. */
  get notifiedRids(): readonly number[] {
    if (this.#stale) {
      const rids = new Set<number>();
      for (const device of this.#devices.values()) if (this.#notified(device)) rids.add(device.rid);
      this.#rids = [...rids];
      this.#stale = false;
    }
    return this.#rids;
  }

  /**
   * Appends the handles of notified devices whose requester id is among the first `count` of
   * `rids`.
   */
  handles(rids: readonly number[], count: number, out: number[]): void {
    for (const device of this.#devices.values()) {
      if (!this.#notified(device)) continue;
      for (let i = 0; i < count; i++) {
        if (rids[i] !== device.rid) continue;
        out.push(device.device);
        break;
      }
    }
  }

  find(device: number): Readonly<Device> | undefined {
    return this.#devices.get(device);
  }

  #notified(device: Device): boolean {
    return device.flags !== 0 && !(this.shadowing && (device.flags & NOTIFY.MAP) !== 0);
  }

  all(): Iterable<Readonly<Device>> {
    return this.#devices.values();
  }

  get count(): number {
    return this.#devices.size;
  }
}
