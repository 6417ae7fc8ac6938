/**
 * A connected virtual machine for tests of the session: a client, its shared page, and what it was
 * sent.
 */
import { fileURLToPath } from 'node:url';
import { requireFresh } from '../../setup/build-stamp.mjs';
import { closeFd, FileMapping, memoryFile, socketPair } from '../../src/base/native.js';
import { highHalf, lowHalf } from '../../src/base/u64.js';
import {
  type SessionClosed,
  type SessionHost,
  type SessionOptions,
  startSession,
} from '../../src/session/host.js';
import { FAKE } from '../../src/session/testing/fake-model.js';
import { type BackendService, Client } from '../../src/wire/client.js';
import { ALL_FEATURES, CONTROL, MESSAGE, SHARED, VERSION } from '../../src/wire/frame.js';
import type * as M from '../../src/wire/messages.js';

/** Of the shared page file, the ring included. */
export const PAGE_BYTES = SHARED.REGISTERS + FAKE.BYTES + SHARED.RING_BYTES;

const ROOT = new URL('../../', import.meta.url);

// A session runs in a thread, and a thread runs compiled code: a stale build would be tested
// instead of the sources.
requireFresh(fileURLToPath(ROOT));

/** Module of the fake model, as compiled. */
const FAKE_MODELS = new URL('dist/session/testing/fake-model.js', ROOT).href;

export class TestVm {
  readonly client: Client;
  readonly page: Uint32Array;
  readonly pageFd: number;
  readonly invalidations: M.Invalidate[] = [];
  readonly interrupts: M.Interrupt[] = [];
  /** Served by MEM_READ, MEM_WRITE, MEM_CAS at guest address 0x10_0000. */
  readonly remote = new Uint8Array(65536);
  /**
   * What MEM_READ does besides; tests put an invalidation's acknowledgement behind it, for
   * instance.
   */
  service: Partial<BackendService> = {};
  readonly #file: FileMapping;
  #sent = 0;

  constructor(fd: number) {
    this.pageFd = memoryFile('page', PAGE_BYTES);
    this.#file = new FileMapping(this.pageFd, 0, PAGE_BYTES, true);
    this.page = new Uint32Array(this.#file.view(0, PAGE_BYTES));
    const service: BackendService = {
      invalidate: (m) => {
        this.invalidations.push({ ...m, devices: Array.from(m.devices) });
        return this.service.invalidate?.(m) ?? { code: 0, text: '' };
      },
      interrupt: (m) => this.interrupts.push({ ...m }),
      memRead: (m) => this.service.memRead?.(m) ?? this.memRead(m),
      memWrite: (m) => {
        this.remote.set(m.data, m.gpaLo - 0x10_0000);
        return { code: 0, text: '' };
      },
      memCas: (m) => {
        const word = new DataView(this.remote.buffer);
        const found = word.getUint32(m.gpaLo - 0x10_0000, true);
        if (found === m.expected) word.setUint32(m.gpaLo - 0x10_0000, m.value, true);
        return { code: 0, found };
      },
      resume: (m) => this.service.resume?.(m),
      pageResponse: (m) => this.service.pageResponse?.(m),
      deviceTlb: (m) => this.service.deviceTlb?.(m) ?? { result: 0 },
      hostBatch: (m) => this.service.hostBatch?.(m) ?? { failures: [] },
      track: (m) => this.service.track?.(m) ?? { code: 0, text: '' },
    };
    this.client = new Client(fd, service);
  }

  memRead(m: M.MemRead): M.MemReadReply {
    const at = m.gpaLo - 0x10_0000;
    return { code: 0, data: this.remote.subarray(at, at + m.size) };
  }

  hello(changes: Partial<M.Hello> = {}): M.HelloReply {
    const reply = this.client.hello(
      {
        version: VERSION,
        features: ALL_FEATURES,
        vm: 'test',
        model: 'fake',
        peer: 'vitest',
        sharedBytes: PAGE_BYTES,
        options: {},
        ...changes,
      },
      this.pageFd,
    );
    return { ...reply };
  }

  memAdd(changes: Partial<M.MemAdd>, fds: readonly number[]): M.Status {
    const base = { region: 1, gpaLo: 0, gpaHi: 0, sizeLo: 0x10000, sizeHi: 0, offsetLo: 0, offsetHi: 0 };
    const message = { ...base, readonly: false, shared: true, ...changes };
    return { ...this.client.request(MESSAGE.MEM_ADD, message, fds) };
  }

  /** Adds a sealed file of `bytes` as RAM at `gpa`; returns its descriptor. */
  addRam(region: number, gpa: number, bytes: number): number {
    const fd = memoryFile('ram', bytes);
    const halves = {
      gpaLo: lowHalf(gpa),
      gpaHi: highHalf(gpa),
      sizeLo: lowHalf(bytes),
      sizeHi: highHalf(bytes),
    };
    const status = this.memAdd({ region, ...halves }, [fd]);
    if (status.code !== 0) throw new Error(status.text);
    return fd;
  }

  write(offset: number, lo: number, size = 4): void {
    this.#sent++;
    this.client.post(MESSAGE.REG_WRITE, { offset, size, lo: lo >>> 0, hi: 0 });
  }

  /** A register from the shared page. */
  peek(offset: number): number {
    return Atomics.load(this.page, (SHARED.REGISTERS + offset) / 4);
  }

  /** A register by REG_READ. */
  read(offset: number, size = 4): number {
    return this.client.request(MESSAGE.REG_READ, { offset, size }).lo;
  }

  get handled(): number {
    return Atomics.load(this.page, CONTROL.HANDLED);
  }

  get sent(): number {
    return this.#sent;
  }

  translate(lo: number, changes: Partial<M.Translate> = {}): M.TranslateReply {
    const reply = this.client.request(MESSAGE.TRANSLATE, {
      rid: 8,
      pasid: 0,
      access: 1,
      lo,
      hi: 0,
      kind: 0,
      mayStall: false,
      size: 0,
      ...changes,
    });
    return { ...reply, spans: Array.from(reply.spans) };
  }

  close(): void {
    this.client.close();
    closeFd(this.pageFd);
    this.#file.unmap();
  }
}

export interface Connected {
  readonly vm: TestVm;
  readonly host: SessionHost;
  readonly log: string[];
  readonly closed: SessionClosed[];
}

/** A session of the fake model in its own thread, and a machine at the other end of its socket. */
export function connected(options: Partial<SessionOptions> = {}): Connected {
  const [mine, theirs] = socketPair();
  const log: string[] = [];
  const closed: SessionClosed[] = [];
  const host = startSession(theirs, {
    session: 'test',
    models: FAKE_MODELS,
    onLog: (level, message, fields) => log.push(`${level} ${message} ${JSON.stringify(fields)}`),
    onClosed: (end) => closed.push(end),
    ...options,
  });
  return { vm: new TestVm(mine), host, log, closed };
}
