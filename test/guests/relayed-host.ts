import { fstatSync } from 'node:fs';
import { join } from '../../src/base/u64.js';
import type { SimDevice } from '../../src/host/sim/sim-device.js';
import type { SimGuest } from '../../src/host/sim/sim-guest.js';
import { SimHost } from '../../src/host/sim/sim-host.js';
import { MappedMemory } from '../../src/memory/mapped.js';
import { AssignedHost } from '../../src/sim/assigned-host.js';
import type { Client } from '../../src/wire/client.js';
import { bodyCodec, CODEC } from '../../src/wire/codec.js';
import { FLAG, MESSAGE } from '../../src/wire/frame.js';
import { Relay, type Way } from '../bridge/relay.js';

const HOST_RID = 0x0108;
/** Of HOST_DEVICE, which QEMU has not asked. */
const OUR_ID = 0x7fff_0000;
/** QEMU counts its own from 1. */
const FIRST_DEVICE = 1000;
const PAGE = 4096;
const TABLE_ADDRESS = 0xffff_ffff_f000n;

/**
 * A simulated SMMUv3 host between a QEMU with a real guest and its daemon: one device of that
 * machine is told to the daemon as one that this host has assigned, what the daemon asks for is
 * done here, and a simulated device does DMA through what that comes to, in the guest's own memory.
 * QEMU does not know.
 */
export class RelayedHost {
  /** Requester id of the device that is assigned. */
  readonly #rid: number;
  readonly host = new SimHost({ kind: 'smmuv3', firstDevice: FIRST_DEVICE });
  /** Opcodes of the commands that were forwarded, each with whether guest tables were bound. */
  readonly commands: { readonly opcode: number; readonly bound: boolean }[] = [];
  device: SimDevice | undefined;
  /** Called when the host has bound guest tables, before the daemon hears of it. */
  bindingChanged: () => void = () => undefined;
  readonly #memory = new MappedMemory();
  readonly #guest: SimGuest;
  readonly #assigned: AssignedHost;
  #daemon: Way['to'] | undefined;

  private constructor(
    readonly relay: Relay,
    rid: number,
    bytes: number,
  ) {
    this.#rid = rid;
    const memory = this.#memory;
    const { host } = this;
    this.#guest = host.addGuest({ name: 'guest', memory, bytes, container: 'iommufd' });
    const guest = this.#guest;
    const invalidate = guest.invalidate.bind(guest);
    guest.invalidate = (parent, list, done) => {
      const bound = this.bound;
      for (let at = 0; at < list.count; at++) {
        this.commands.push({ opcode: (list.words[at * 4] as number) & 0xff, bound });
      }
      invalidate(parent, list, done);
    };
    const client = {
      request: (type: number, body: object) => {
        this.#daemon?.put(type, FLAG.NEED_REPLY, OUR_ID, bodyCodec(type as never), body as never);
        return { code: 0, text: '', choice: 0 };
      },
      post: (type: number, body: object) =>
        this.#daemon?.put(type, 0, 0, bodyCodec(type as never), body as never),
    };
    this.#assigned = new AssignedHost(host, guest, client as unknown as Client);
    relay.takes = (way, descriptors) => this.#takes(way, descriptors);
    relay.passed = (type, way) => this.#passed(type, way);
  }

  /**
   * @param path where QEMU is to connect
   * @param rid of the device that is to be assigned
   * @param bytes end of the guest's physical addresses
   */
  static async start(path: string, daemon: string, rid: number, bytes: number): Promise<RelayedHost> {
    return new RelayedHost(await Relay.start(path, daemon), rid, bytes);
  }

  /** Hardware walks tables of the guest: stage 1 of its STE. */
  get bound(): boolean {
    return this.#contextPointer() !== undefined;
  }

  #contextPointer(): number | undefined {
    const domain = this.host.driver.attached({ rid: HOST_RID, pasid: -1 });
    if (domain?.kind !== 'nested' || domain.stage1.format !== 'smmuv3') return undefined;
    const [lo, hi] = domain.stage1.ste as unknown as [number, number];
    // Config: stage 1.
    if ((lo & 0b1110) !== 0b1010) return undefined;
    const table = (hi & 0xf_ffff) * 2 ** 32 + ((lo & ~0x3f) >>> 0);
    // S1CDMax and S1Fmt: one descriptor, an array of them, or a table of arrays.
    return hi >>> 27 === 0 || (lo & 0x30) === 0 ? table : Number(this.#entry(table) & TABLE_ADDRESS);
  }

  /**
   * Pages of 4 KiB that the guest's tables map for requests without SubstreamID: the plainest
   * reading, of 48 bits through TTB0 with
   * 4 KiB granules.
   */
  mapped(): Set<number> {
    const pages = new Set<number>();
    const cd = this.#contextPointer();
    if (cd !== undefined && (this.#entry(cd) & (1n << 31n)) !== 0n) {
      if ((this.#entry(cd) & 0x3fn) !== 16n) throw new Error('not 48 bits');
      this.#collect(Number(this.#entry(cd + 8) & TABLE_ADDRESS), 4, 0, pages);
    }
    return pages;
  }

  #collect(table: number, level: number, first: number, pages: Set<number>): void {
    for (let index = 0; index < 512; index++) {
      const entry = this.#entry(table + index * 8);
      if ((entry & 1n) === 0n) continue;
      const page = first + index * 512 ** (level - 1);
      if (level > 1 && (entry & 2n) !== 0n) {
        this.#collect(Number(entry & TABLE_ADDRESS), level - 1, page, pages);
      } else for (let at = 0; at < 512 ** (level - 1); at++) pages.add(page + at);
    }
  }

  #entry(address: number): bigint {
    if (!this.#memory.load64(address)) throw new Error(`no memory at 0x${address.toString(16)}`);
    return (BigInt(this.#memory.hi >>> 0) << 32n) | BigInt(this.#memory.lo >>> 0);
  }

  /** Of these pages, those that the device reaches. */
  reached(pages: Iterable<number>): number[] {
    const word = new Uint32Array(1);
    const reaches = (page: number): boolean =>
      this.device?.read((page * PAGE) >>> 0, Math.floor(page / 2 ** 20), word).done === 4;
    return [...pages].filter(reaches);
  }

  async dispose(): Promise<void> {
    await this.relay.dispose();
    this.host.removeGuest(this.#guest);
    this.#memory.clear();
  }

  #takes(way: Way, descriptors: readonly number[]): boolean {
    const { from, fromDaemon } = way;
    const { type, id, reply } = from.frame;
    if (!fromDaemon) {
      if (type === MESSAGE.MEM_ADD && !reply) this.#addMemory(way, descriptors);
      return false;
    }
    if (type === MESSAGE.HOST_DEVICE && reply && id === OUR_ID) return true;
    if (type < MESSAGE.HOST_SPACE_CREATE || type > MESSAGE.HOST_RESPOND || reply) return false;
    if (type === MESSAGE.HOST_RESPOND) this.#assigned.respond(from.body(CODEC.HostRespond));
    else {
      const answer = this.#assigned.operation(type, from.body(bodyCodec(type as never)));
      if (type === MESSAGE.HOST_ATTACH_TABLES) this.bindingChanged();
      from.put(type, FLAG.REPLY, id, CODEC.HostReply, answer);
    }
    return true;
  }

  /** As soon as the daemon has taken the machine. */
  #passed(type: number, { from, fromDaemon }: Way): void {
    if (type !== MESSAGE.HELLO || !fromDaemon || this.device !== undefined) return;
    this.#daemon = from;
    this.device = this.host.addVf(HOST_RID, this.#guest);
    const added = { device: this.device.number, rid: this.#rid, name: 'assigned by a simulated host' };
    from.put(MESSAGE.DEVICE_ADDED, 0, 0, CODEC.DeviceAdded, added);
    this.#assigned.announce(this.device);
    while (!from.flush());
  }

  #addMemory({ from }: Way, descriptors: readonly number[]): void {
    const message = from.body(CODEC.MemAdd);
    const fd = descriptors[0];
    if (fd === undefined) return;
    const gpa = join(message.gpaLo, message.gpaHi);
    const size = join(message.sizeLo, message.sizeHi);
    if (gpa % PAGE !== 0 || size % PAGE !== 0) return;
    const { region, readonly } = message;
    const offset = join(message.offsetLo, message.offsetHi);
    this.#memory.add({ region, gpa, size, offset, readonly, fd, fileBytes: fstatSync(fd).size });
  }
}
