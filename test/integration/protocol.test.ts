import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { ErrorName } from '../../src/base/errors.js';
import { closeFd, memoryFile } from '../../src/base/native.js';
import { SimVm, type SimVmOptions } from '../../src/sim/vm.js';
import { type BackendService, Client } from '../../src/wire/client.js';
import { CODEC } from '../../src/wire/codec.js';
import { ALL_FEATURES, FEATURE, FLAG, MESSAGE, SHARED, VERSION } from '../../src/wire/frame.js';
import type { Hello } from '../../src/wire/messages.js';
import { Daemon, eventually } from '../support/daemon.js';
import { DATA, device, expectReaches, MIB, RID, startDriver } from '../support/rig.js';

const IOVA = 0x4000_0000n;
const SHARED_BYTES = SHARED.REGISTERS + 65536 + SHARED.RING_BYTES;

const NO_SERVICE: BackendService = {
  invalidate: () => ({ code: 0, text: '' }),
  interrupt: () => {},
  memRead: () => ({ code: 40, data: new Uint8Array(0) }),
  memWrite: () => ({ code: 40, text: '' }),
  memCas: () => ({ code: 40, found: 0 }),
  resume: () => {},
  pageResponse: () => {},
  deviceTlb: () => ({ result: 0 }),
  hostBatch: () => ({ failures: [] }),
  track: () => ({ code: 0, text: '' }),
};

const HELLO: Hello = {
  version: VERSION,
  features: ALL_FEATURES,
  vm: 'broken',
  model: 'vtd',
  peer: 'test',
  sharedBytes: SHARED_BYTES,
  options: {},
};

function header(type: number, flags: number, size: number, id = 7): Uint8Array {
  return new Uint8Array(Uint32Array.of(type, flags, size, id).buffer);
}

interface Breach {
  readonly name: string;
  readonly code: ErrorName;
  readonly vm?: SimVmOptions;
  /** What the peer does wrong after HELLO. */
  readonly after?: (vm: SimVm) => void;
}

const raw = (vm: SimVm, ...parts: Uint8Array[]): void => {
  for (const part of parts) vm.client.front.putRaw(part);
  vm.client.front.flush();
};

const AFTER_HELLO: readonly Breach[] = [
  { name: 'a body above the limit', code: 'FRAME_TOO_LONG', after: (vm) => raw(vm, header(6, 9, 65537)) },
  { name: 'a body of 4 GiB', code: 'FRAME_TOO_LONG', after: (vm) => raw(vm, header(6, 9, 0xffff_ffff)) },
  { name: 'an unknown type', code: 'UNKNOWN_TYPE', after: (vm) => raw(vm, header(99, 9, 0)) },
  {
    name: 'a type beyond the table',
    code: 'UNKNOWN_TYPE',
    after: (vm) => raw(vm, header(0x8000_0006, 9, 0)),
  },
  { name: 'another version in the header', code: 'BAD_HEADER', after: (vm) => raw(vm, header(6, 10, 0)) },
  { name: 'reserved flags', code: 'BAD_HEADER', after: (vm) => raw(vm, header(6, 0x19, 0)) },
  { name: 'a second HELLO', code: 'OUT_OF_ORDER', after: (vm) => raw(vm, header(1, 9, 0)) },
  { name: 'a message of the other channel', code: 'OUT_OF_ORDER', after: (vm) => raw(vm, header(64, 9, 0)) },
  { name: 'a reply on the front channel', code: 'UNEXPECTED_REPLY', after: (vm) => raw(vm, header(6, 5, 0)) },
  {
    name: 'a body that is no message',
    code: 'BAD_BODY',
    after: (vm) => raw(vm, header(6, 9, 3), Uint8Array.of(0xff, 0xff, 0xff)),
  },
  {
    name: 'a body that ends within a field',
    code: 'BAD_BODY',
    after: (vm) => raw(vm, header(6, 9, 2), Uint8Array.of(0x25, 0x01)),
  },
  {
    name: 'REPLAY without notifiers in force',
    code: 'NOT_NEGOTIATED',
    vm: { features: FEATURE.SHARED_MEMORY | FEATURE.SPANS },
    after: (vm) => raw(vm, header(MESSAGE.REPLAY, 9, 0)),
  },
  {
    name: 'an interrupt without remapping in force',
    code: 'NOT_NEGOTIATED',
    vm: { features: FEATURE.SHARED_MEMORY | FEATURE.SPANS },
    after: (vm) => raw(vm, header(MESSAGE.REMAP_INTERRUPT, 9, 0)),
  },
  {
    name: 'an interrupt to an address between doublewords',
    code: 'BAD_ARGUMENT',
    after: (vm) =>
      vm.client.send(MESSAGE.REMAP_INTERRUPT, FLAG.NEED_REPLY, 5, CODEC.RemapInterrupt, {
        ...CODEC.RemapInterrupt.create(),
        addressLo: 0xfee0_0001,
      }),
  },
  {
    name: 'remote memory that is not in force',
    code: 'NOT_NEGOTIATED',
    vm: { features: FEATURE.SHARED_MEMORY },
    after: (vm) =>
      vm.client.send(MESSAGE.MEM_ADD, FLAG.NEED_REPLY, 5, CODEC.MemAdd, {
        ...CODEC.MemAdd.create(),
        region: 9,
        gpaHi: 1,
        sizeLo: 4096,
      }),
  },
  {
    name: 'shared memory without its file',
    code: 'MISSING_DESCRIPTOR',
    after: (vm) =>
      vm.client.send(MESSAGE.MEM_ADD, FLAG.NEED_REPLY, 5, CODEC.MemAdd, {
        ...CODEC.MemAdd.create(),
        region: 9,
        gpaHi: 1,
        sizeLo: 4096,
        shared: true,
      }),
  },
  {
    name: 'a file that no message takes',
    code: 'EXTRA_DESCRIPTOR',
    after: (vm) => {
      const fd = memoryFile('viommu-sim-extra', 4096);
      vm.client.send(MESSAGE.REG_READ, FLAG.NEED_REPLY, 5, CODEC.RegRead, { offset: 0, size: 4 }, [fd, fd]);
      closeFd(fd);
    },
  },
  {
    name: 'a requester id of more than 16 bits',
    code: 'BAD_ARGUMENT',
    after: (vm) =>
      vm.client.send(MESSAGE.TRANSLATE, FLAG.NEED_REPLY, 5, CODEC.Translate, {
        ...CODEC.Translate.create(),
        rid: 0x1_0000,
      }),
  },
  {
    name: 'an acknowledgement of no request',
    code: 'UNEXPECTED_REPLY',
    after: (vm) => {
      vm.client.backend.put(MESSAGE.INVALIDATE, FLAG.REPLY, 4711, CODEC.Status, { code: 0, text: '' });
      vm.client.backend.flush();
    },
  },
  {
    name: 'a request on the backend channel',
    code: 'OUT_OF_ORDER',
    after: (vm) => {
      vm.client.backend.put(MESSAGE.REG_READ, FLAG.NEED_REPLY, 1, CODEC.RegRead, { offset: 0, size: 4 });
      vm.client.backend.flush();
    },
  },
];

const BAD_HELLO: readonly (readonly [string, ErrorName, Partial<Hello>])[] = [
  ['no version', 'BAD_VERSION', { version: 0 }],
  ['an unknown model', 'UNKNOWN_MODEL', { model: 'amd-vi' }],
  ['an unknown option', 'BAD_OPTION', { options: { 'no-such-option': 'on' } }],
  ['an impossible option', 'BAD_OPTION', { options: { 'aw-bits': '40' } }],
  ['a shared page that is too small', 'BAD_SHARED_PAGE', { sharedBytes: 4096 }],
  ['a shared page larger than its file', 'BAD_SHARED_PAGE', { sharedBytes: SHARED_BYTES * 2 }],
];

describe('peers that break the protocol', () => {
  let daemon: Daemon;
  let healthy: SimVm;
  let descriptors = 0;
  beforeAll(async () => {
    daemon = await Daemon.start();
    healthy = SimVm.connect(daemon.socket, { name: 'healthy', ramBytes: 32 * MIB });
    const driver = startDriver(healthy, 'legacy');
    const domain = driver.createDomain('second');
    driver.attach(RID, domain);
    driver.map(domain, IOVA, DATA, 4096);
    descriptors = daemon.descriptors().length;
  });
  afterEach(async () => {
    // Whatever the other peer did: this machine goes on, and nothing of the other is left.
    healthy.iotlb.clear();
    expectReaches(healthy, device(healthy), IOVA, DATA);
    expect(daemon.running).toBe(true);
    await eventually(
      () => daemon.descriptors().length === descriptors,
      `descriptors go back to ${descriptors}, not ${daemon.descriptors().length}`,
    );
    // Its mappings go with its thread, and that takes a moment.
    await eventually(() => daemon.guestMappings().length === 2, 'a page and RAM of this machine');
  });
  afterAll(async () => {
    healthy.close();
    await daemon.dispose();
  });

  const logged = (code: ErrorName): Promise<unknown> =>
    eventually(
      () => daemon.log().find((line) => JSON.stringify(line).includes(`"${code}"`)),
      `a log line with ${code}:\n${daemon.text()}`,
    );

  for (const breach of AFTER_HELLO) {
    it(`${breach.name} ends its connection with ${breach.code}`, async () => {
      const vm = SimVm.connect(daemon.socket, { name: 'broken', ramBytes: MIB, ...breach.vm });
      try {
        breach.after?.(vm);
        expect(vm.client.awaitEnd().reason).toBe(breach.code);
      } finally {
        vm.close();
      }
      await logged(breach.code);
    });
  }

  for (const [name, code, change] of BAD_HELLO) {
    it(`HELLO with ${name} is refused with ${code}`, async () => {
      const client = Client.connect(daemon.socket, NO_SERVICE);
      const page = memoryFile('viommu-sim-shared', SHARED_BYTES);
      try {
        client.send(MESSAGE.HELLO, FLAG.NEED_REPLY, 1, CODEC.Hello, { ...HELLO, ...change }, [
          client.backendPeer,
          page,
        ]);
        expect(client.awaitEnd().reason).toBe(code);
      } finally {
        closeFd(client.backendPeer);
        closeFd(page);
        client.close();
      }
      await logged(code);
    });
  }

  it('HELLO with one descriptor is MISSING_DESCRIPTOR, with three EXTRA_DESCRIPTOR', () => {
    for (const [count, code] of [
      [0, 'MISSING_DESCRIPTOR'],
      [1, 'MISSING_DESCRIPTOR'],
      [3, 'EXTRA_DESCRIPTOR'],
    ] as const) {
      const client = Client.connect(daemon.socket, NO_SERVICE);
      const page = memoryFile('viommu-sim-shared', SHARED_BYTES);
      const all = [client.backendPeer, page, page].slice(0, count);
      client.send(MESSAGE.HELLO, FLAG.NEED_REPLY, 1, CODEC.Hello, HELLO, all);
      expect(client.awaitEnd().reason, `${count} descriptors`).toBe(code);
      closeFd(client.backendPeer);
      closeFd(page);
      client.close();
    }
  });

  it('anything before HELLO is OUT_OF_ORDER', () => {
    const client = Client.connect(daemon.socket, NO_SERVICE);
    client.send(MESSAGE.REG_READ, FLAG.NEED_REPLY, 1, CODEC.RegRead, { offset: 0, size: 4 });
    expect(client.awaitEnd().reason).toBe('OUT_OF_ORDER');
    closeFd(client.backendPeer);
    client.close();
  });

  it('a peer that goes away in the middle of a frame is FRAME_TRUNCATED', async () => {
    const vm = SimVm.connect(daemon.socket, { name: 'broken', ramBytes: MIB });
    raw(vm, header(MESSAGE.TRANSLATE, 9, 100), new Uint8Array(50));
    vm.close();
    await logged('FRAME_TRUNCATED');
  });

  it('a peer that connects and says nothing, or goes at once, does not disturb others', () => {
    const silent = Client.connect(daemon.socket, NO_SERVICE);
    expectReaches(healthy, device(healthy), IOVA, DATA);
    closeFd(silent.backendPeer);
    silent.close();
    for (let n = 0; n < 5; n++) {
      const client = Client.connect(daemon.socket, NO_SERVICE);
      closeFd(client.backendPeer);
      client.close();
    }
  });

  it('a peer that refuses an INVALIDATE is PEER_REFUSED', async () => {
    let refuse = false;
    const client = Client.connect(daemon.socket, {
      ...NO_SERVICE,
      invalidate: () => ({ code: refuse ? 50 : 0, text: 'no' }),
    });
    const page = memoryFile('viommu-sim-shared', SHARED_BYTES);
    client.hello(HELLO, page);
    closeFd(page);
    client.request(MESSAGE.TRANSLATE, {
      rid: 1,
      pasid: 0,
      access: 1,
      lo: 0,
      hi: 0,
      kind: 0,
      mayStall: false,
      size: 0,
    });
    refuse = true;
    client.post(MESSAGE.REG_WRITE, { offset: 0x18, size: 4, lo: 0x8000_0000, hi: 0 });
    for (let i = 0; i < 100 && client.serve(10) === 0; i++);
    expect(client.awaitEnd().reason).toBe('PEER_REFUSED');
    client.close();
    await logged('PEER_REFUSED');
  });

  it('features and fields from the future are ignored', () => {
    const client = Client.connect(daemon.socket, NO_SERVICE);
    const page = memoryFile('viommu-sim-shared', SHARED_BYTES);
    const reply = client.hello({ ...HELLO, version: 9, features: 0xffff_ffff }, page);
    expect(reply.version).toBe(VERSION);
    expect(reply.features).toBe(ALL_FEATURES);
    // Field 15, a varint, which no message has.
    client.front.putRaw(header(MESSAGE.REG_READ, 9, 6, 3));
    client.front.putRaw(Uint8Array.of(0x10, 0x04, 0x78, 0x81, 0x80, 0x01));
    client.front.flush();
    expect(client.awaitReply(MESSAGE.REG_READ, 3).lo).toBe(0x50);
    closeFd(page);
    client.close();
  });
});
