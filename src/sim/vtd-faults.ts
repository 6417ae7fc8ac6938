import { faultName } from '../spec/vtd/faults.js';
import {
  CAP_REG,
  FEADDR_REG,
  FECTL_REG,
  FEDATA_REG,
  FEUADDR_REG,
  FRCD_BYTES,
  FRCD_REG,
  FSTS_REG,
} from '../spec/vtd/registers.js';
import type { Registers } from './vtd-registers.js';

/** One primary fault, as the fault recording registers have it. VT-d §11.4.7.6 */
interface FaultRecord {
  /** Which recording register. */
  readonly index: number;
  readonly reason: number;
  readonly text: string;
  readonly rid: number;
  /** −1 when the request had none. */
  readonly pasid: number;
  /** The page: low 12 bits are zero. */
  readonly address: bigint;
  /** T1:T2 of §11.4.7.6: 0 = write, 2 = read. */
  readonly type: 'write' | 'read' | 'other';
  /** AT of §11.4.7.6. */
  readonly kind: 'untranslated' | 'translation' | 'translated' | 'reserved';
  readonly execute: boolean;
  readonly privileged: boolean;
}

const KINDS = ['untranslated', 'translation', 'translated', 'reserved'] as const;

interface FaultStatus {
  readonly overflow: boolean;
  readonly pending: boolean;
  readonly index: number;
}

/** What a driver's fault interrupt handler does. */
export class FaultHandler {
  readonly records: number;
  readonly #offset: number;

  constructor(readonly registers: Registers) {
    const cap = registers.read(CAP_REG);
    this.records = CAP_REG.get.NFR(cap) + 1;
    this.#offset = CAP_REG.get.FRO(cap) * 16;
  }

  /** Programs the fault-event MSI and unmasks it. §11.4.7.2–5 */
  enableInterrupt(address: number, data: number): void {
    this.registers.write(FEDATA_REG, { IMD: data });
    this.registers.write(FEADDR_REG, { MA: address });
    this.registers.write(FEUADDR_REG, { MUA: 0 });
    this.mask(false);
  }

  mask(on: boolean): void {
    this.registers.write(FECTL_REG, { IM: on ? 1 : 0 });
  }

  status(): FaultStatus {
    const words = this.registers.read(FSTS_REG);
    return {
      overflow: FSTS_REG.get.PFO(words) === 1,
      pending: FSTS_REG.get.PPF(words) === 1,
      index: FSTS_REG.get.FRI(words),
    };
  }

  /**
   * Reads every pending record from FRI on, oldest first. Clears each (F), then the overflow bit.
   */
  drain(): FaultRecord[] {
    const found: FaultRecord[] = [];
    const { pending, index, overflow } = this.status();
    if (pending) {
      for (let step = 0, at = index; step < this.records; step++, at = (at + 1) % this.records) {
        const record = this.record(at);
        if (record === undefined) break;
        found.push(record);
        this.clear(at);
      }
    }
    if (overflow) this.registers.write(FSTS_REG, { PFO: 1 });
    return found;
  }

  /** Record `index`, undefined while its F bit is clear. */
  record(index: number): FaultRecord | undefined {
    const at = this.#offset + index * FRCD_BYTES;
    const machine = this.registers.machine;
    const high = machine.readRegister(at + 8, 8);
    const low = machine.readRegister(at, 8);
    const words = Uint32Array.of(
      Number(low & 0xffff_ffffn),
      Number(low >> 32n),
      Number(high & 0xffff_ffffn),
      Number(high >> 32n),
    );
    const get = FRCD_REG.get;
    if (get.F(words) === 0) return undefined;
    const reason = get.FR(words);
    const t1 = get.T1(words);
    return {
      index,
      reason,
      text: faultName(reason),
      rid: get.SID(words),
      pasid: get.PP(words) === 1 ? get.PV(words) : -1,
      address: low & ~0xfffn,
      type: get.T2(words) === 1 ? 'other' : t1 === 1 ? 'read' : 'write',
      kind: KINDS[get.AT(words)],
      execute: get.EXE(words) === 1,
      privileged: get.PRIV(words) === 1,
    };
  }

  /** Writes 1 to the record's F bit, which stands in its last 32-bit word. */
  clear(index: number): void {
    this.registers.machine.writeRegister(this.#offset + index * FRCD_BYTES + 12, 4, 0x8000_0000n);
  }
}

/** A fault record as a driver's log would have it. */
export function faultText({ rid, pasid, reason, type, address, text }: FaultRecord): string {
  const bdf = `${hex2(rid >> 8)}:${hex2((rid >> 3) & 31)}.${rid & 7}`;
  const tagged = pasid < 0 ? '' : ` PASID 0x${pasid.toString(16)}`;
  return `[DMA ${type}] ${bdf}${tagged} address 0x${address.toString(16)} reason 0x${hex2(reason)} (${text})`;
}

function hex2(value: number): string {
  return value.toString(16).padStart(2, '0');
}
