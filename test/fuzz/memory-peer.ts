import { closeFd, socketPair, wakeFd } from '../../src/base/native.js';
import type { GuestMemory } from '../../src/memory/guest-memory.js';
import { RemoteMemory } from '../../src/memory/remote.js';
import { BackendMemory, type MemoryChannel } from '../../src/session/remote-access.js';
import { Channel, FILL } from '../../src/wire/channel.js';
import { CODEC, type Codec } from '../../src/wire/codec.js';
import { FLAG, type Frame, MESSAGE, VERSION } from '../../src/wire/frame.js';
import { frameBytes } from './frame-maker.js';

const NOT_MEMORY = 40;
const WORD = new Uint32Array(1);

/**
 * A peer that has guest memory to itself: MEM_READ, MEM_WRITE and MEM_CAS go through the daemon's
 * own code and a real socket to here, on one thread. Before it answers one it may answer other
 * things, which then come in the middle of an input.
 */
export class MemoryPeer {
  /** What the engine has for memory. */
  readonly memory: RemoteMemory;
  readonly #access: BackendMemory;
  readonly #daemon: Channel;
  readonly #peer: Channel;
  readonly #wakeFd = wakeFd();
  readonly #ram: GuestMemory;
  readonly #early: () => void;

  /**
   * @param ram what it answers from
   * @param early called before each answer; may {@link send} others
   */
  constructor(ram: GuestMemory, bytes: number, early: () => void) {
    const [daemon, peer] = socketPair();
    this.#daemon = new Channel(daemon);
    this.#peer = new Channel(peer);
    this.#ram = ram;
    this.#early = early;
    const channel = this.#throughPeer(this.#daemon);
    this.#access = new BackendMemory(channel, this.#wakeFd);
    this.#access.open(channel);
    this.memory = new RemoteMemory(this.#access);
    this.memory.add({ region: 1, gpa: 0, size: bytes, readonly: false });
  }

  /** What the daemon asks goes to the peer, as the loop's backend channel does. */
  ask<T extends object>(type: number, flags: number, id: number, codec: Codec<T>, message: T): void {
    this.#daemon.put(type, flags, id, codec, message);
    this.#daemon.flush();
    this.#serve();
  }

  /** The peer sends bytes of a frame on the backend channel. */
  send(bytes: Uint8Array): void {
    this.#peer.putRaw(bytes);
    this.#peer.flush();
  }

  /**
   * Gives every frame that has come to `take`: kept ones first, as the loop does. Throws what ends
   * the connection.
   */
  deliver(take: (frame: Frame, bytes: Uint8Array) => void): void {
    const access = this.#access;
    for (;;) {
      if (access.failure !== undefined) throw access.failure;
      const kept = access.setAside.shift();
      if (kept !== undefined) take(kept.frame, kept.bytes);
      else if (this.#daemon.next()) take(this.#daemon.frame, this.#daemon.bytes);
      else if (this.#daemon.fill() !== FILL.DATA) return;
    }
  }

  close(): void {
    this.#daemon.close();
    this.#peer.close();
    this.#access.free();
    closeFd(this.#wakeFd);
  }

  /** The daemon's channel; when it sends, the peer has its turn. */
  #throughPeer(daemon: Channel): MemoryChannel {
    const serve = (): void => this.#serve();
    return {
      get fd() {
        return daemon.fd;
      },
      get bytes() {
        return daemon.bytes;
      },
      get unsent() {
        return daemon.unsent;
      },
      get owed() {
        return daemon.owed;
      },
      get full() {
        return daemon.full;
      },
      frame: daemon.frame,
      put: (type, flags, id, codec, message) => daemon.put(type, flags, id, codec, message),
      flush: () => {
        const all = daemon.flush();
        serve();
        return all;
      },
      fill: () => daemon.fill(),
      next: () => daemon.next(),
      body: (codec) => daemon.body(codec),
      ending: () => daemon.ending(),
    };
  }

  #serve(): void {
    const peer = this.#peer;
    do {
      while (peer.next()) {
        const { type, id } = peer.frame;
        const bytes = this.#answer(type, id);
        if (bytes === undefined) continue;
        this.#early();
        this.send(bytes);
      }
    } while (peer.fill() === FILL.DATA);
  }

  #answer(type: number, id: number): Uint8Array | undefined {
    const flags = VERSION | FLAG.REPLY;
    if (type === MESSAGE.MEM_READ) {
      const { gpaLo, size } = this.#peer.body(CODEC.MemRead);
      const words = new Uint32Array(size / 4);
      const there = size === 4 ? this.#load32(gpaLo, words) : this.#ram.loadWords(gpaLo, words, size / 4);
      const message = { code: there ? 0 : NOT_MEMORY, data: new Uint8Array(words.buffer) };
      return frameBytes(type, flags, id, CODEC.MemReadReply, message);
    }
    if (type === MESSAGE.MEM_WRITE) {
      const { gpaLo, data } = this.#peer.body(CODEC.MemWrite);
      const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
      for (let at = 0; at < data.length; at += 4) this.#ram.store32(gpaLo + at, view.getUint32(at, true));
      return frameBytes(type, flags, id, CODEC.Status, { code: 0, text: '' });
    }
    if (type === MESSAGE.MEM_CAS) {
      const { gpaLo, expected, value } = this.#peer.body(CODEC.MemCas);
      this.#ram.cas32(gpaLo, expected, value);
      return frameBytes(type, flags, id, CODEC.MemCasReply, { code: 0, found: this.#ram.lo >>> 0 });
    }
    return undefined;
  }

  #load32(gpa: number, out: Uint32Array): boolean {
    if (!this.#ram.load32(gpa)) return false;
    WORD[0] = this.#ram.lo;
    out.set(WORD);
    return true;
  }
}
