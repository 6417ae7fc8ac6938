import { describe, expect, it } from 'vitest';
import { wordsOf } from '../../../test/support/plain-entries.js';
import { READ, TestMachine } from '../../../test/support/vtd-unit.js';
import { TTM } from '../../spec/vtd/registers.js';

const RID = 0x0018;
const DID = 6;

/** Descriptors by bit numbers. §6.5.2.3 */
const page = (address: bigint): bigint => 0x32n | (BigInt(DID) << 16n) | (address << 64n);
const GLOBAL = 0x12n;

describe('the invalidation queue is not for the peer', () => {
  it('in legacy mode while first-stage translations are out, of which a page takes the whole domain along', () => {
    const machine = new TestMachine();
    const root = machine.page();
    machine.mapFirst(root, 4, 0x4000n, 0x20_4000n);
    const { directory } = machine.scalableContext(RID);
    machine.pasidEntry(directory, 0, 0x41n, BigInt(DID) | (1n << 23n), BigInt(root));
    machine.setRoot(TTM.SCALABLE);
    machine.enableQueue(true);
    machine.enable();
    expect(machine.translate(RID, 0x4000n, READ)).toMatchObject({ ok: true, space: DID, sub: 0 });
    expect(machine.model.peerQueue?.ready).toBe(true);
    // Without ESRTPS the IOTLB keeps what it holds, until software invalidates it.
    machine.setRoot(TTM.LEGACY);
    expect(machine.model.peerQueue?.ready).toBe(true);
    expect(machine.translate(RID, 0x4000n, READ)).toMatchObject({ ok: true, space: DID, sub: 0 });
    expect(machine.model.peerQueue?.ready).toBe(false);
    machine.invalidations.length = 0;
    machine.submit(wordsOf(page(0x9000n), 32));
    expect(machine.invalidations).toMatchObject([{ space: DID, log2Size: 64 }]);
    machine.submit(wordsOf(GLOBAL, 32));
    expect(machine.model.peerQueue?.ready).toBe(true);
  });
});
