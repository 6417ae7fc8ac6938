import { closeFd, FileMapping, memoryFile } from '../base/native.js';
import { pageAt, pageOf } from '../base/page.js';
import { highHalf, join, lowHalf } from '../base/u64.js';
import { DEVICE_TLB, REQUEST, SPAN_WORDS } from '../device/iommu.js';
import { Client } from '../wire/client.js';
import { ALL_FEATURES, CONTROL, FEATURE, MESSAGE, NOTIFY, SHARED, VERSION } from '../wire/frame.js';
import { PeerMailbox } from '../wire/mailbox.js';
import type * as M from '../wire/messages.js';
import type { AssignedHost } from './assigned-host.js';
import { SimContainer } from './container.js';
import type {
  BusAnswer,
  BusPageRequest,
  BusPageResponse,
  DropHandler,
  Machine,
  MsiWrite,
  Translation,
} from './machine.js';
import { SimInterrupts } from './sim-interrupts.js';
import { SimIotlb, throughSpan } from './sim-iotlb.js';
import { SimPeerQueue } from './sim-peer-queue.js';
import { type RamRegion, SimRam } from './sim-ram.js';
import type { SimVmOptions } from './vm-options.js';

export type { SimVmOptions };

/** Code of the table in src/base/errors.ts for memory that is not there. */
const NOT_MEMORY = 40;
const DONE: M.Status = { code: 0, text: '' };

/** The simulated VM asks for every translation. */
const OWN_FEATURES = ALL_FEATURES & ~FEATURE.PEER_WALKS;

/** What came on the backend channel, for tests. */
interface Traffic {
  invalidations: number;
  memReads: number;
  memWrites: number;
  memCas: number;
  /** HOST_BATCHes that came with the answer to a register write. */
  batchesInAnswers: number;
}

/**
 * A virtual machine without a monitor. It speaks the wire as the QEMU bridge does: registers are
 * read from the shared page, writes are posted, it has an IOTLB with epochs, and serves
 * invalidations and interrupts while it waits. It blocks its thread, so it needs one of its own.
 */
export class SimVm implements Machine {
  readonly ram = new SimRam();
  readonly iotlb = new SimIotlb();
  readonly remapped = new SimInterrupts((request) => this.client.request(MESSAGE.REMAP_INTERRUPT, request));
  readonly interrupts: MsiWrite[] = [];
  readonly edges: number[] = [];
  readonly traffic: Traffic = { invalidations: 0, memReads: 0, memWrites: 0, memCas: 0, batchesInAnswers: 0 };
  readonly client: Client;
  /** Features in force. */
  features = 0;
  registerBytes = 0;
  session = '';
  /** Called before an INVALIDATE is obeyed and answered. */
  onInvalidate: (message: M.Invalidate) => void = () => {};
  /** The answer of a device with a TLB of its own. Messages are reused: copy what is to be kept. */
  onDeviceTlb: (message: M.DeviceTlb) => M.DeviceTlbReply = (message) => this.#drop(message);
  readonly deviceTlbs = new Map<number, DropHandler>();
  readonly resumes = new Map<number, number>();
  readonly pageResponses: BusPageResponse[] = [];
  /** Called before a HOST_BATCH is carried out. */
  onHostBatch: (message: M.HostBatch) => void = () => {};
  /** Batches that came with answers and are not carried out; undefined: they are, at once. */
  heldBatches: M.RegWriteReply[] | undefined;
  /** The host of devices that were assigned with objects of its IOMMU. */
  assigned: AssignedHost | undefined;
  /** Hosts of assigned devices, by handle. */
  readonly hosts = new Map<number, SimContainer>();
  /** Carries out plain invalidations by itself; undefined: they are sent. */
  peerQueue: SimPeerQueue | undefined;
  /** Devices with notifiers, by handle. */
  readonly #notified = new Set<number>();
  /** Numbers of the pages whose stores are reported to the daemon. */
  readonly tracked = new Set<number>();
  readonly #shared: boolean;
  #sharedFd = -1;
  #sharedFile: FileMapping | undefined;
  readonly #sharedBytes: number;
  #sharedWords = new Int32Array(0);
  #sent = 0;
  /** What HostSettleReply.sent counts, modulo 2^32. */
  #carriedOut = 0;

  private constructor(path: string, options: SimVmOptions) {
    this.#shared = options.sharedMemory ?? true;
    this.ram.onStore = (gpa, size) => this.#stored(gpa, size);
    this.#sharedBytes = options.sharedBytes ?? SHARED.REGISTERS + 0x20000 + SHARED.RING_BYTES;
    this.client = Client.connect(path, {
      invalidate: (message) => this.#invalidate(message),
      invalidateInterrupts: (message) => this.#invalidateInterrupts(message),
      interrupt: (message) => this.#interrupt(message),
      memRead: (message) => this.#memRead(message),
      memWrite: (message) => this.#memWrite(message),
      memCas: (message) => this.#memCas(message),
      resume: ({ stall, action }) => void this.resumes.set(stall, action),
      pageResponse: ({ rid, pasid, group, code }) =>
        void this.pageResponses.push({ rid, pasid: pasid - 1, group, code }),
      deviceTlb: (message) => this.onDeviceTlb(message),
      hostBatch: (message) => this.#hostBatch(message),
      track: (message) => this.#track(message),
      queue: (message) => this.peerQueue?.take(message),
      hostOperation: (type, message) => (this.assigned as AssignedHost).operation(type, message),
      hostRespond: (message) => this.assigned?.respond(message),
    });
  }

  /** The guest has stored. A store to a tracked page ends when the hosts' mappings follow it. */
  #stored(gpa: number, size: number): void {
    if (this.tracked.size === 0 || !this.tracked.has(pageAt(gpa))) return;
    const { settled } = this.client.request(MESSAGE.TABLE_WRITE, {
      lo: lowHalf(gpa),
      hi: highHalf(gpa),
      size,
    });
    if (!settled) this.settle();
  }

  /** Connects, handshakes and adds the RAM. Throws `CodedError` when the daemon refuses. */
  static connect(path: string, options: SimVmOptions = {}): SimVm {
    const vm = new SimVm(path, options);
    try {
      vm.#hello(options);
      const bytes = options.ramBytes ?? 64 * 2 ** 20;
      if (bytes > 0) vm.addRam(0, bytes);
    } catch (error) {
      vm.close();
      throw error;
    }
    return vm;
  }

  /** Adds RAM and tells the daemon. Throws when it refuses. */
  addRam(base: number, bytes: number): RamRegion {
    const region = this.ram.add(base, bytes);
    const status = this.client.request(
      MESSAGE.MEM_ADD,
      {
        region: region.id,
        gpaLo: lowHalf(base),
        gpaHi: highHalf(base),
        sizeLo: lowHalf(bytes),
        sizeHi: highHalf(bytes),
        offsetLo: 0,
        offsetHi: 0,
        readonly: false,
        shared: this.#shared,
      },
      this.#shared ? [region.fd] : [],
    );
    if (status.code !== 0) {
      this.ram.remove(region);
      throw new Error(`MEM_ADD refused: ${status.code} ${status.text}`);
    }
    return region;
  }

  /** Unplugs RAM; the daemon gives it up first. */
  removeRam(region: RamRegion): void {
    const status = this.client.request(MESSAGE.MEM_REMOVE, { region: region.id });
    if (status.code !== 0) throw new Error(`MEM_REMOVE refused: ${status.code} ${status.text}`);
    this.ram.remove(region);
  }

  /** The register page if the daemon has handled every write, else its answer: always current. */
  readRegister(offset: number, size: 4 | 8): bigint {
    if (Atomics.load(this.#sharedWords, CONTROL.HANDLED) === (this.#sent | 0)) {
      const index = (SHARED.REGISTERS + offset) / 4;
      const low = BigInt(Atomics.load(this.#sharedWords, index) >>> 0);
      if (size === 4) return low;
      return (BigInt(Atomics.load(this.#sharedWords, index + 1) >>> 0) << 32n) | low;
    }
    return this.askRegister(offset, size);
  }

  /** REG_READ: the daemon's answer after every write sent before. */
  askRegister(offset: number, size: number): bigint {
    const reply = this.client.request(MESSAGE.REG_READ, { offset, size });
    return (BigInt(reply.hi >>> 0) << 32n) | BigInt(reply.lo >>> 0);
  }

  writeRegister(offset: number, size: number, value: bigint): void {
    if (this.#aloneWithTranslations && this.peerQueue?.ring(offset, size, value, this.#sent)) return;
    this.#sent = (this.#sent + 1) >>> 0;
    Atomics.store(this.#sharedWords, CONTROL.SENT, this.#sent | 0);
    const lo = Number(value & 0xffff_ffffn);
    const hi = Number((value >> 32n) & 0xffff_ffffn);
    if (this.hosts.size === 0 || (this.features & FEATURE.WRITE_REPLY) === 0) {
      this.client.post(MESSAGE.REG_WRITE, { offset, size, lo, hi });
      return;
    }
    const reply = this.client.requestByMail(MESSAGE.REG_WRITE, { offset, size, lo, hi });
    if (reply.batch === 0) return;
    this.traffic.batchesInAnswers++;
    const answer = { ...reply, ops: Uint32Array.from(reply.ops) };
    if (this.heldBatches === undefined) this.carryOut(answer);
    else this.heldBatches.push(answer);
  }

  /** Whether only the own IOTLB keeps translations. Requests of simulated devices never overlap. */
  get #aloneWithTranslations(): boolean {
    return this.hosts.size === 0 && this.assigned === undefined && this.#notified.size === 0;
  }

  /** Carries out the batch that came with the answer to a register write, and answers it. */
  carryOut(answer: M.RegWriteReply): void {
    this.client.answer(MESSAGE.HOST_BATCH, answer.batch, this.#hostBatch(answer));
  }

  translate(rid: number, pasid: number, access: number, address: bigint): Translation | undefined {
    const hit = this.iotlb.lookup(rid, pasid, access, address);
    if (hit !== undefined) return hit;
    const since = this.iotlb.generation;
    const reply = this.askTranslation(rid, pasid, access, address);
    this.#writeCounters();
    if (reply.status !== 0) return undefined;
    const spans = Array.from(reply.spans);
    if (!reply.once) this.iotlb.fill(rid, pasid, reply.space, reply.sub, reply.epoch, spans, since);
    return throughSpan(spans, 0, address);
  }

  /** TRANSLATE: always a round trip. The reply is reused by the next one. */
  askTranslation(
    rid: number,
    pasid: number,
    access: number,
    address: bigint,
    kind: number = REQUEST.UNTRANSLATED,
    mayStall = false,
  ): M.TranslateReply {
    return this.client.request(MESSAGE.TRANSLATE, {
      rid,
      pasid: pasid + 1,
      access,
      lo: Number(address & 0xffff_ffffn),
      hi: Number((address >> 32n) & 0xffff_ffffn),
      kind,
      mayStall,
      size: 0,
    });
  }

  request(
    rid: number,
    pasid: number,
    access: number,
    address: bigint,
    kind: number,
    mayStall: boolean,
  ): BusAnswer {
    const { status, stall, spans, once } = this.askTranslation(rid, pasid, access, address, kind, mayStall);
    return { status, stall, span: Array.from(spans).slice(0, SPAN_WORDS), once };
  }

  requestPage({ rid, pasid, access, address, group, last }: BusPageRequest): void {
    const lo = Number(address & 0xffff_ffffn);
    const hi = Number((address >> 32n) & 0xffff_ffffn);
    this.client.post(MESSAGE.PAGE_REQUEST, { rid, pasid: pasid + 1, access, lo, hi, group, last });
  }

  idle(ms: number): boolean {
    return this.client.serve(ms) > 0;
  }

  /** Machine reset: the model is as at power-on when this returns. RAM keeps its contents. */
  reset(): void {
    const status = this.client.request(MESSAGE.RESET, {});
    if (status.code !== 0) throw new Error(`RESET refused: ${status.code} ${status.text}`);
    this.iotlb.clear();
    this.remapped.clear();
    this.interrupts.length = 0;
    this.edges.length = 0;
    this.resumes.clear();
    this.pageResponses.length = 0;
  }

  addDevice(device: number, rid: number, name = ''): void {
    this.client.post(MESSAGE.DEVICE_ADDED, { device, rid, name });
  }

  /** Assigns a device. From now on it reaches only what the daemon has its host map. */
  assignDevice(device: number, rid: number, name = ''): SimContainer {
    const host = new SimContainer();
    this.hosts.set(device, host);
    this.addDevice(device, rid, name);
    this.notify(device, NOTIFY.UNMAP | NOTIFY.MAP);
    const all = { firstLo: 0, firstHi: 0, lastLo: 0xffff_ffff, lastHi: 0xffff_ffff };
    this.client.post(MESSAGE.HOST_LISTEN, { device, ...all });
    this.settle();
    return host;
  }

  /** Sets the events that a device's notifier wants; flags of NOTIFY. */
  notify(device: number, flags: number): void {
    if (flags === 0) this.#notified.delete(device);
    else this.#notified.add(device);
    this.client.post(MESSAGE.NOTIFIER, { device, flags });
  }

  /** Waits until the hosts' mappings are what the guest's tables say. */
  settle(): void {
    for (;;) {
      const { settled, sent } = this.client.request(MESSAGE.HOST_SETTLE, {});
      if (settled) return;
      // Serves the backend channel until as many messages as were sent have been carried out.
      while (((sent - this.#carriedOut) | 0) > 0) if (this.client.serve(1000) === 0) break;
    }
  }

  removeDevice(device: number): void {
    this.#notified.delete(device);
    this.client.post(MESSAGE.DEVICE_REMOVED, { device });
  }

  /** Disconnects, and frees everything that the VM had. */
  close(): void {
    this.client.close();
    this.peerQueue = undefined;
    this.ram.close();
    if (this.#sharedFd < 0) return;
    this.#sharedWords = new Int32Array(SHARED.REGISTERS / 4);
    this.#sharedFile?.unmap();
    closeFd(this.#sharedFd);
    this.#sharedFd = -1;
  }

  #hello(options: SimVmOptions): void {
    this.#sharedFd = memoryFile('viommu-sim-shared', this.#sharedBytes);
    this.#sharedFile = new FileMapping(this.#sharedFd, 0, this.#sharedBytes, true);
    this.#sharedWords = new Int32Array(this.#sharedFile.view(0, this.#sharedBytes));
    const reply = this.client.hello(
      {
        version: VERSION,
        features: options.features ?? OWN_FEATURES,
        vm: options.name ?? 'simulated',
        model: options.model ?? 'vtd',
        peer: 'viommu simulated VM',
        sharedBytes: this.#sharedBytes,
        options: { ...options.options },
      },
      this.#sharedFd,
    );
    this.features = reply.features;
    if ((reply.features & FEATURE.MAILBOX) !== 0) {
      this.client.mailbox = new PeerMailbox(this.control);
    }
    this.registerBytes = reply.registerBytes;
    this.session = reply.session;
    if ((reply.features & FEATURE.QUEUES) === 0) return;
    this.peerQueue = new SimPeerQueue({
      file: this.#sharedWords.buffer,
      ram: this.ram,
      drop: (what) => this.iotlb.drop(what),
      queueRan: () => this.client.post(MESSAGE.QUEUE_RAN, {}),
    });
  }

  /** Words of the control page. */
  get control(): Uint32Array {
    return new Uint32Array(this.#sharedWords.buffer, SHARED.CONTROL, (SHARED.SAVED - SHARED.CONTROL) / 4);
  }

  #writeCounters(): void {
    const { hits, misses, staleFills, invalidated } = this.iotlb.counters;
    const words = this.#sharedWords;
    words[CONTROL.HITS_LO] = hits;
    words[CONTROL.HITS_HI] = highHalf(hits);
    words[CONTROL.MISSES_LO] = misses;
    words[CONTROL.MISSES_HI] = highHalf(misses);
    words[CONTROL.STALE_FILLS] = staleFills;
    words[CONTROL.INVALIDATED] = invalidated;
  }

  #invalidate(message: M.Invalidate): M.Status {
    this.onInvalidate(message);
    this.traffic.invalidations++;
    if (message.devices.length > 0) this.#carriedOut++;
    const base = (BigInt(message.hi >>> 0) << 32n) | BigInt(message.lo >>> 0);
    this.iotlb.invalidate({ ...message, base }, message.epoch);
    return DONE;
  }

  #invalidateInterrupts(message: M.InvalidateInterrupts): M.Status {
    this.#carriedOut++;
    this.remapped.invalidate(message);
    return DONE;
  }

  #drop({ rid, pasid, lo, hi, log2Size, global }: M.DeviceTlb): M.DeviceTlbReply {
    const address = (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0);
    const drop = { pasid: pasid - 1, address, log2Size, global };
    return { result: this.deviceTlbs.get(rid)?.(drop) ?? DEVICE_TLB.UNSUPPORTED };
  }

  #hostBatch(message: M.HostBatch): M.HostBatchReply {
    this.onHostBatch(message);
    this.#carriedOut++;
    return { failures: this.hosts.get(message.device)?.run(message.ops) ?? [] };
  }

  #track({ pages }: M.Track): M.Status {
    this.#carriedOut++;
    for (let at = 0; at < pages.length; at += 2) {
      const page = pageOf(pages[at], pages[at + 1]);
      if ((pages[at] & 1) !== 0) this.tracked.add(page);
      else this.tracked.delete(page);
    }
    return DONE;
  }

  #interrupt(message: M.Interrupt): void {
    if (message.wire > 0) this.edges.push(message.wire - 1);
    else this.interrupts.push({ address: join(message.addressLo, message.addressHi), data: message.data });
  }

  #memRead(message: M.MemRead): M.MemReadReply {
    this.traffic.memReads++;
    const gpa = join(message.gpaLo, message.gpaHi);
    if (!this.ram.contains(gpa, message.size)) return { code: NOT_MEMORY, data: new Uint8Array(0) };
    return { code: 0, data: this.ram.view(gpa, message.size) };
  }

  #memWrite(message: M.MemWrite): M.Status {
    this.traffic.memWrites++;
    const gpa = join(message.gpaLo, message.gpaHi);
    if (!this.ram.contains(gpa, message.data.length)) return { code: NOT_MEMORY, text: '' };
    this.ram.view(gpa, message.data.length).set(message.data);
    return DONE;
  }

  #memCas(message: M.MemCas): M.MemCasReply {
    this.traffic.memCas++;
    const gpa = join(message.gpaLo, message.gpaHi);
    if (!this.ram.contains(gpa, 4)) return { code: NOT_MEMORY, found: 0 };
    const found = this.ram.load32(gpa) >>> 0;
    if (found === message.expected >>> 0) this.ram.store32(gpa, message.value);
    return { code: 0, found };
  }
}
