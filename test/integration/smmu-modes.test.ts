import { expect, it } from 'vitest';
import { ACCESS } from '../../src/device/iommu.js';
import { READ_ONLY } from '../../src/sim/page-table.js';
import type { DomainOptions } from '../../src/sim/smmu-domain.js';
import { S1DSS, S1FMT } from '../../src/spec/smmuv3/structures.js';
import { DATA, device, expectReaches, MIB, type Options, RAM_BYTES } from '../support/rig.js';
import { expectEvent, expectSilentAbort, SID, startSmmu } from '../support/smmu-rig.js';
import { onBothTransports } from '../support/transports.js';

const IOVA = 0x12_3400_0000n;
/** Where a stage 2 below sees guest memory. */
const OFFSET = 2n ** 36n;
const WIDE: Options = { oas: '52' };

const GRANULES = [12, 14, 16] as const;
/** log2 of the blocks of each granule. */
const BLOCKS: Readonly<Record<number, readonly number[]>> = { 12: [21, 30], 14: [25], 16: [29] };

onBothTransports(
  'SMMUv3 modes',
  (rig) => {
    for (const granule of GRANULES) {
      const name = `${2 ** (granule - 10)} KiB`;
      for (const inputBits of [25, 32, 39, 48]) {
        it(`stage 1, ${name} granule, ${inputBits} bits`, () => {
          const { machine } = rig();
          const driver = startSmmu(machine);
          const domain = driver.createDomain('first', { granule, inputBits });
          const at = BigInt(2 ** inputBits - 4 * 2 ** granule);
          driver.attach(SID, domain);
          driver.map(domain, at, DATA, 2 ** granule);
          expectReaches(machine, device(machine, SID), at + 0x800n, DATA + 0x800);
          driver.unmap(domain, at, 2 ** granule);
          expectEvent(driver, 'write', -1, at + 0x800n, 'F_TRANSLATION', {
            address: at + 0x800n,
            fields: { CLASS: 2 },
          });
          expectEvent(driver, 'read', -1, 2n ** BigInt(inputBits), 'F_TRANSLATION', { fields: { RnW: 1 } });
        });
      }

      for (const inputBits of [32, 40, 48]) {
        it(`stage 2, ${name} granule, ${inputBits} bits`, () => {
          const { machine } = rig();
          const driver = startSmmu(machine);
          const domain = driver.createDomain('second', { granule, inputBits });
          const at = BigInt(2 ** inputBits - 2 ** granule);
          driver.attach(SID, domain);
          driver.map(domain, at, DATA, 2 ** granule);
          expectReaches(machine, device(machine, SID), at, DATA);
          driver.unmap(domain, at, 2 ** granule);
          expectEvent(driver, 'write', -1, at, 'F_TRANSLATION', { fields: { S2: 1, IPA: Number(at) } });
        });
      }

      it(`blocks of the ${name} granule, in both stages`, () => {
        const { machine } = rig();
        const driver = startSmmu(machine);
        for (const kind of ['first', 'second'] as const) {
          const domain = driver.createDomain(kind, { granule });
          driver.attach(SID, domain);
          BLOCKS[granule]?.forEach((log2, n) => {
            const at = BigInt(n + 1) * 2n ** 40n;
            const within = DATA % 2 ** log2;
            driver.map(domain, at, DATA - within, 2 ** log2, undefined, log2);
            expectReaches(machine, device(machine, SID), at + BigInt(within) + 0x123000n, DATA + 0x123000);
          });
          driver.detach(SID);
        }
      });

      it(`both stages, ${name} granule below and above others`, () => {
        const { machine } = rig();
        const driver = startSmmu(machine);
        for (const below of GRANULES) {
          const parent = driver.createDomain('second', { granule: below, inputBits: 40 });
          driver.map(parent, OFFSET, 0, RAM_BYTES);
          const domain = driver.createNested(parent, { granule }, (gpa) => OFFSET + BigInt(gpa));
          driver.attach(SID, domain);
          driver.map(domain, IOVA, Number(OFFSET) + DATA, 4 * 2 ** granule);
          expectReaches(machine, device(machine, SID), IOVA + 0x1000n, DATA + 0x1000);
          driver.map(domain, IOVA, Number(OFFSET) + 2 ** 38, 2 ** granule);
          driver.invalidateRange(domain, IOVA, 2 ** granule);
          driver.commands.sync();
          expectEvent(driver, 'write', -1, IOVA, 'F_TRANSLATION', {
            fields: { S2: 1, CLASS: 2, IPA: Number(OFFSET) + 2 ** 38 },
          });
          driver.detach(SID);
        }
      });
    }

    it('TTB1, and the top byte where it is ignored', () => {
      const { machine } = rig();
      const driver = startSmmu(machine);
      const domain = driver.createDomain('first', { upper: true, inputBits: 39, topByteIgnored: true });
      driver.attach(SID, domain);
      const at = 0xffff_ff80_1234_5000n;
      driver.map(domain, at, DATA, 4096);
      expectReaches(machine, device(machine, SID), at, DATA);
      expectReaches(machine, device(machine, SID), at ^ (0xa5n << 56n), DATA);
      expectEvent(driver, 'read', -1, 0x1234_5000n, 'F_TRANSLATION');
      expectEvent(driver, 'read', -1, at ^ (1n << 50n), 'F_TRANSLATION', { address: at ^ (1n << 50n) });
    });

    it('52-bit addresses with the 64 KiB granule', () => {
      const { machine } = rig(WIDE);
      const driver = startSmmu(machine);
      const domain = driver.createDomain('first', { granule: 16, inputBits: 48 });
      driver.attach(SID, domain);
      driver.map(domain, IOVA, DATA, 0x1_0000);
      expectReaches(machine, device(machine, SID), IOVA, DATA);
    });

    for (const [streamTable, sid] of [
      ['linear', 0x7f],
      ['two-level', 0xfff8],
    ] as const) {
      it(`a ${streamTable} stream table, bypass and abort`, () => {
        const { machine } = rig();
        const driver = startSmmu(machine, { streamTable });
        driver.attach(sid, driver.createDomain('bypass'));
        expectReaches(machine, device(machine, sid), BigInt(DATA), DATA);
        driver.detach(sid);
        expectSilentAbort(driver, -1, BigInt(DATA), sid);
        expectSilentAbort(driver, -1, BigInt(DATA), 0x100);
      });
    }

    for (const [s1Fmt, ssid] of [
      [S1FMT.LINEAR, 200],
      [S1FMT.TWO_LEVEL_4K, 200],
      [S1FMT.TWO_LEVEL_64K, 3000],
    ] as const) {
      it(`SubstreamIDs, format ${s1Fmt}, beside requests without one`, () => {
        const { machine } = rig();
        const driver = startSmmu(machine);
        const shared = driver.createDomain('first');
        const own = driver.createDomain('first');
        driver.attach(SID, shared, { ssidBits: 12, s1Fmt });
        driver.attachSubstream(SID, ssid, own);
        driver.map(shared, IOVA, DATA, 4096);
        driver.map(own, IOVA, DATA + MIB, 4096);
        expectReaches(machine, device(machine, SID), IOVA, DATA);
        expectReaches(machine, device(machine, SID, ssid), IOVA, DATA + MIB);
        expectEvent(driver, 'write', 0, IOVA, 'F_STREAM_DISABLED');
        expectEvent(driver, 'write', 5000, IOVA, 'C_BAD_SUBSTREAMID', { ssid: 5000 });
        driver.detachSubstream(SID, ssid, own);
        expectEvent(driver, 'write', ssid, IOVA, 'C_BAD_CD', { ssid });
        expectReaches(machine, device(machine, SID), IOVA, DATA);
      });
    }

    it('requests without SubstreamID as S1DSS says', () => {
      const { machine } = rig();
      const driver = startSmmu(machine);
      const own = driver.createDomain('first');
      driver.map(own, IOVA, DATA, 4096);
      driver.attachSubstream(SID, 3, own);
      expectEvent(driver, 'write', -1, IOVA, 'F_STREAM_DISABLED');
      driver.attachSubstream(SID + 1, 3, own, { s1Dss: S1DSS.BYPASS });
      expectReaches(machine, device(machine, SID + 1), BigInt(DATA), DATA);
      expectReaches(machine, device(machine, SID + 1, 3), IOVA, DATA);
    });

    it('SubstreamIDs above a stage 2', () => {
      const { machine } = rig();
      const driver = startSmmu(machine);
      const parent = driver.createDomain('second', { inputBits: 40 });
      driver.map(parent, OFFSET, 0, RAM_BYTES, undefined, 21);
      const domain = driver.createNested(parent, {}, (gpa) => OFFSET + BigInt(gpa));
      driver.attachSubstream(SID, 9, domain);
      driver.map(domain, IOVA, Number(OFFSET) + DATA, 4096);
      expectReaches(machine, device(machine, SID, 9), IOVA, DATA);
    });

    for (const hardware of ['access', 'dirty'] as const) {
      it(`hardware updates: ${hardware}`, () => {
        const { machine } = rig();
        const driver = startSmmu(machine);
        const options: DomainOptions = { hardware };
        for (const kind of ['first', 'second'] as const) {
          const domain = driver.createDomain(kind, options);
          driver.attach(SID, domain);
          driver.map(domain, IOVA, DATA, 4096, READ_ONLY);
          const entry = domain.table?.entryAddress(IOVA) as number;
          // Writable-clean, and never accessed.
          const clean = (machine.ram.load64(entry) | (1n << 51n)) & ~(1n << 10n);
          machine.ram.store64(entry, clean);
          expect(machine.translate(SID, -1, ACCESS.READ, IOVA)).toBeDefined();
          expect(machine.ram.load64(entry)).toBe(clean | (1n << 10n));
          if (hardware === 'access') expectEvent(driver, 'write', -1, IOVA, 'F_PERMISSION');
          else {
            expect(machine.translate(SID, -1, ACCESS.WRITE, IOVA)).toBeDefined();
            // AP[2] is cleared in stage 1, S2AP[1] set in stage 2.
            expect(machine.ram.load64(entry)).toBe((clean | (1n << 10n)) ^ (1n << 7n));
          }
          driver.detach(SID);
        }
      });
    }
  },
  'smmuv3',
);
