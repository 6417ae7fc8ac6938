import { symlinkSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { plainCommandsOf } from '../../src/device/smmuv3/commands.js';
import { parseSmmuConfig } from '../../src/device/smmuv3/config.js';
import { pack, type Words } from '../../src/spec/define.js';
import { ANY_COMMAND, CMD, CMD_SYNC, CMD_TLBI, CS } from '../../src/spec/smmuv3/commands.js';
import { CMDQ_CONS, CMDQ_PROD } from '../../src/spec/smmuv3/registers.js';
import { GCMD_REG, GSTS_REG, IQA_REG, IQT_REG, RTADDR_REG } from '../../src/spec/vtd/registers.js';
import { CODEC } from '../../src/wire/codec.js';
import { CONTROL, FLAG, MESSAGE, SHARED } from '../../src/wire/frame.js';
import { Daemon, eventually, sleep } from '../support/daemon.js';
import { BridgeBuild } from './make.js';
import { PhysicalMemory } from './physical-memory.js';
import { BridgeQemu } from './qemu.js';
import { contextCache, iotlb, wait } from './queue-machine.js';
import { ScriptedDaemon } from './scripted-daemon.js';
import { COMMAND, STATUS, TestdevDriver, VIRT_MACHINE } from './testdev-driver.js';

/**
 * Completions in the store: an SMMUv3's commands, and what a real daemon makes of it when it runs
 * late.
 */

const RID = 0x10;

const bytesOf = (words: Words): Uint8Array => new Uint8Array(Uint32Array.from(words).buffer);

async function power(
  qemu: BridgeQemu,
  options: string,
  more: readonly string[],
  machine?: string,
  probe?: Parameters<BridgeQemu['start']>[2],
): Promise<PhysicalMemory> {
  const gdb = `unix:${qemu.path('gdb')},server=on,wait=off`;
  qemu.start(options, ['-S', '-device', 'viommu-testdev', '-gdb', gdb, ...more], probe, machine);
  await qemu.command('query-status');
  return PhysicalMemory.connect(qemu.path('gdb'));
}

describe('an SMMUv3', () => {
  const [UNIT, QUEUE, MSI, DATA] = [0x905_0000, 0x4020_0000, 0x4030_0000, 0x4100_0000];
  const TRANSLATER = 0x809_0040;
  /** Pages by ASID, of VMID 1. */
  const [FIRST, OTHER] = [2, 3];
  const PAGES = [0x5000, 0x6000, 0x8000];
  const FAR = 0x10_5000;

  let qemu: BridgeQemu;
  let daemon: ScriptedDaemon;
  let memory: PhysicalMemory;
  let device: TestdevDriver;
  let asked: number[];

  beforeEach(async () => {
    qemu = new BridgeQemu('arm64');
    asked = [];
    const none = { status: 0, epoch: 0, once: false, stall: 0 };
    daemon = await ScriptedDaemon.start(qemu.socket, {
      translate: (channel, id) => {
        const { lo } = channel.body(CODEC.Translate);
        const input = lo & ~0xfff;
        asked.push(input);
        const tags = { space: 1, sub: lo < FAR ? FIRST : OTHER };
        const spans = Uint32Array.of(input, 0, DATA, 0, 12, 3);
        channel.put(MESSAGE.TRANSLATE, FLAG.REPLY, id, CODEC.TranslateReply, { ...none, ...tags, spans });
      },
      write: () => {
        daemon.setControlWord(CONTROL.HANDLED, daemon.writes.length);
        return { batch: 0, device: 0, ops: [] };
      },
    });
    memory = await power(qemu, '', ['-cpu', 'cortex-a57'], VIRT_MACHINE);
    device = await TestdevDriver.startOnVirt(memory, RID);
    await memory.write(MSI, new Uint8Array(16));
    daemon.post(MESSAGE.QUEUE, {
      ...{ number: 1, tail: CMDQ_PROD.offset, head: CMDQ_CONS.offset, indexMask: 0x1ff, indexShift: 0 },
      ...{ wraps: true, baseLo: QUEUE, baseHi: 0, entryLog2: 4, entriesLog2: 8 },
      commands: plainCommandsOf(parseSmmuConfig({})),
    });
    const unused = { space: 0x7ff0, sub: 0, rid: 0xfffe, pasid: 0, lo: 0, hi: 0, log2Size: 12, epoch: 1 };
    await daemon.ask(MESSAGE.INVALIDATE, { ...unused, devices: [], structures: false });
    daemon.setControlWord(CONTROL.QUEUE, 1);
    expect(await reads()).toEqual([...PAGES, FAR]);
    expect(await reads()).toEqual([]);
  });

  afterEach(async () => {
    memory.close();
    qemu.dispose();
    await daemon.dispose();
  });

  /** The device reads all pages; those that were asked for. */
  async function reads(): Promise<number[]> {
    asked = [];
    for (const address of [...PAGES, FAR]) {
      expect(await device.run(COMMAND.READ, { address }), qemu.text).toBe(STATUS.DONE);
    }
    return asked;
  }

  /** Puts commands at the queue's beginning, and rings. Whether the daemon was told. */
  async function ring(commands: readonly Words[]): Promise<boolean> {
    for (const [n, words] of commands.entries()) await memory.write(QUEUE + n * 16, bytesOf(words));
    const sent = daemon.controlWord(CONTROL.SENT);
    await memory.writeWord(UNIT + CMDQ_PROD.offset, commands.length);
    return daemon.controlWord(CONTROL.SENT) !== sent;
  }

  const registers = (): number[] =>
    [CMDQ_PROD, CMDQ_CONS].map(({ offset }) => daemon.controlWord((SHARED.REGISTERS + offset) / 4));
  const tlbi = (given: Parameters<typeof pack<keyof typeof CMD_TLBI.fields>>[1]): Words =>
    pack(CMD_TLBI, { Opcode: CMD.TLBI_NH_VA, VMID: 1, ASID: FIRST, ...given });
  const sync = (given: Parameters<typeof pack<keyof typeof CMD_SYNC.fields>>[1] = {}): Words =>
    pack(CMD_SYNC, { Opcode: CMD.SYNC, ...given });
  const message = (MSIAddress: number): Words => sync({ CS: CS.SIG_IRQ, MSIAddress, MSIData: 0x1234_5678 });

  it('completes with a message to memory', async () => {
    expect(await ring([tlbi({ Address: 0x5000 }), message(MSI)])).toBe(false);
    expect(await memory.readWord(MSI)).toBe(0x1234_5678);
    expect(registers()).toEqual([2, 2]);
    expect(await reads()).toEqual([0x5000]);
  });

  it('completes with a message to where the command itself stands, as Linux has it', async () => {
    const command = QUEUE + 16;
    expect(await ring([tlbi({ Address: 0x5000 }), message(command), tlbi({ Address: 0x6000 })])).toBe(false);
    expect(await memory.readWord(command)).toBe(0x1234_5678);
    expect(registers()).toEqual([3, 3]);
    expect(await reads()).toEqual([0x5000, 0x6000]);
  });

  it('completes without one, by its index, whose neighbours stay', async () => {
    daemon.setControlWord((SHARED.REGISTERS + CMDQ_CONS.offset) / 4, 0x0100_0000);
    expect(await ring([tlbi({ Opcode: CMD.TLBI_NH_ASID }), sync()])).toBe(false);
    expect(registers()).toEqual([2, 0x0100_0002]);
    expect(await memory.readWord(MSI)).toBe(0);
    expect(await reads()).toEqual(PAGES);
  });

  it('drops a range, and leaves what is behind it', async () => {
    // Three pages.
    expect(await ring([tlbi({ Address: 0x5000, TG: 1, NUM: 2 }), sync()])).toBe(false);
    expect(await reads()).toEqual([0x5000, 0x6000]);
  });

  it.each<[string, () => Words[]]>([
    ['a message to the interrupt controller', () => [tlbi({ Address: 0x5000 }), message(TRANSLATER)]],
    ['the wire', () => [tlbi({ Address: 0x5000 }), message(0)]],
    ['structures', () => [pack(ANY_COMMAND, { Opcode: CMD.CFGI_STE }), sync()]],
    ['a security state that it has not', () => [tlbi({ Address: 0x5000, SSec: 1 }), sync()]],
  ])('leaves %s to the daemon', async (_, commands) => {
    expect(await ring(commands())).toBe(true);
    expect(registers()).toEqual([0, 0]);
    expect([await memory.readWord(MSI), daemon.controlWord(CONTROL.RING_FILLED)]).toEqual([0, 0]);
    expect(await reads()).toEqual([]);
  });
});

describe('a real daemon', () => {
  const UNIT = 0xfed9_0000;
  const [ROOT, CONTEXT, TOP, NEXT, LAST] = [0x10_0000, 0x10_1000, 0x10_2000, 0x10_3000, 0x10_4000];
  const [LEAVES, QUEUE, STATUS_AT, DATA] = [0x11_0000, 0x20_0000, 0x30_0000, 0x200_0000];
  const DID = 5;
  const IOVA = 0x4000_0000;
  const TE = 0x8000_0000;

  let daemon: Daemon;
  let qemu: BridgeQemu;
  let memory: PhysicalMemory;
  let device: TestdevDriver;
  let tail: number;
  /** Of the probes, where a test has any. */
  let probes: BridgeBuild | undefined;

  async function store(address: number, value: bigint): Promise<void> {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(value);
    await memory.write(address, bytes);
  }

  async function command(bits: number): Promise<void> {
    const on = (await memory.readWord(UNIT + GSTS_REG.offset)) & 0x9680_0000;
    await memory.writeWord(UNIT + GCMD_REG.offset, (on | bits) >>> 0);
    const done = async () => ((await memory.readWord(UNIT + GSTS_REG.offset)) & bits) !== 0;
    await eventually(done, `GCMD ${bits.toString(16)}`);
  }

  async function announce(entry: Uint32Array, data: number): Promise<void> {
    for (const words of [entry, wait(data, { StatusAddress: STATUS_AT })]) {
      await memory.write(QUEUE + tail, bytesOf(words));
      tail += 16;
    }
    await memory.writeWord(UNIT + IQT_REG.offset, tail);
  }

  const status = (): Promise<number> => memory.readWord(STATUS_AT);
  const map = (gpa: number): Promise<void> => store(LEAVES, BigInt(gpa) | 3n);

  /** The device reads the page: what it finds tells where it leads. */
  async function reached(): Promise<string> {
    expect(await device.run(COMMAND.READ, { address: IOVA, length: 4 }), qemu.text).toBe(STATUS.DONE);
    return (await device.buffer(0, 4)).toString();
  }

  async function start(options: string, probe?: Parameters<typeof power>[4]): Promise<void> {
    qemu = new BridgeQemu();
    symlinkSync(daemon.socket, qemu.socket);
    memory = await power(qemu, options, [], undefined, probe);
    device = await TestdevDriver.start(qemu, memory, RID, 0);
    await memory.write(DATA, Buffer.from('old '));
    await memory.write(DATA + 0x1000, Buffer.from('new '));
    await store(ROOT, BigInt(CONTEXT) | 1n);
    await store(CONTEXT + RID * 16, BigInt(TOP) | 1n);
    await store(CONTEXT + RID * 16 + 8, 2n | (BigInt(DID) << 8n));
    await store(TOP, BigInt(NEXT) | 3n);
    await store(NEXT + 8, BigInt(LAST) | 3n);
    await store(LAST, BigInt(LEAVES) | 3n);
    await map(DATA);
    await store(UNIT + RTADDR_REG.offset, BigInt(ROOT));
    await command(0x4000_0000);
    await store(UNIT + IQA_REG.offset, BigInt(QUEUE));
    await command(0x0400_0000);
    tail = 0;
    await announce(contextCache(), 1);
    await eventually(async () => (await status()) === 1, 'the first completion');
    await command(TE);
    expect(await reached()).toBe('old ');
  }

  beforeEach(async () => {
    daemon = await Daemon.start();
  });

  afterEach(async () => {
    daemon.signal('SIGCONT');
    memory.close();
    qemu.dispose();
    await daemon.dispose();
    probes?.dispose();
    probes = undefined;
  });

  it.each([
    ['walks', ''],
    ['asks', ',walks=off'],
  ])('may stand still: what is plain completes, and nothing else; the bridge %s', async (how, options) => {
    await start(options);
    expect(await reached()).toBe('old ');
    await memory.readWord(UNIT + GSTS_REG.offset);
    daemon.signal('SIGSTOP');
    await map(DATA + 0x1000);
    await announce(iotlb(DID, { ADDR: IOVA }), 2);
    expect(await status()).toBe(2);
    if (how === 'walks') expect(await reached()).toBe('new ');
    for (let n = 3; n < 50; n++) {
      await announce(iotlb(DID, { ADDR: IOVA }), n);
      expect(await status()).toBe(n);
    }
    await announce(contextCache(), 77);
    // What a store completes is complete when it returns, and the daemon stands still.
    expect(await status()).toBe(49);
    // Behind one that is not, a plain one waits its turn.
    await announce(iotlb(DID, { ADDR: IOVA }), 78);
    expect(await status()).toBe(49);
    daemon.signal('SIGCONT');
    await eventually(async () => (await status()) === 78, 'the completions');
    expect(await reached()).toBe('new ');
    await map(DATA);
    await announce(iotlb(DID, { ADDR: IOVA }), 79);
    await eventually(async () => (await status()) === 79, 'the last completion');
    expect(await reached()).toBe('old ');
    expect(qemu.text).toBe('');
    expect(daemon.log().filter(({ level }) => level > 30)).toEqual([]);
  });

  it.each([
    ['walks', '', 50],
    // It takes a lock before it asks, too.
    ['asks', ',walks=off', 150],
  ])(
    'is no help to a thread that was slow to keep what it %s',
    async (_, options, midwayMs) => {
      probes = new BridgeBuild('probe');
      await start(options, { asks: IOVA.toString(16), object: probes.path('late-probe.so') });
      const REPORT = 0x31_0000;
      const rounds = 3;
      for (let n = 0; n < rounds; n++) await memory.write(DATA + n * 4096, Uint8Array.of(n + 1, 0, 0, 0));
      for (let n = 0; n < rounds; n++) {
        // The first makes it learn anew, the second one comes before it keeps what it has learned.
        for (const page of [n === 0 ? rounds - 1 : n - 1, n]) {
          await map(DATA + page * 4096);
          const data = 2 + tail / 16;
          await announce(iotlb(DID, { ADDR: IOVA }), data);
          expect(await status()).toBe(data);
          if (page !== n) await sleep(midwayMs);
        }
        await sleep(600);
        const reads = await memory.readWord(REPORT);
        await eventually(async () => (await memory.readWord(REPORT)) > reads + 1, 'later reads');
        expect(await memory.readWord(REPORT + 4), `round ${n}`).toBe(n + 1);
      }
    },
    30_000,
  );
});
