import { describe, expect, it } from 'vitest';
import { load, store } from './operations.js';
import { OurMachine } from './ours.js';
import { type Outcome, Script } from './script.js';
import { ARENA, ARENA_BYTES, REG, reg, request, VTD_KINDS } from './vtd-machine.js';

/** What the steps of a script show of a machine without any table. */
function outcomes(fill: (script: Script) => void): Outcome[] {
  const machine = new OurMachine(VTD_KINDS[0].ours);
  const script = new Script(ARENA, ARENA_BYTES);
  script.do('root', [store(reg(REG.RTADDR), 8, BigInt(script.allocate()))]);
  script.do('SRTP', [store(reg(REG.GCMD), 4, 1n << 30n), load(reg(REG.GSTS), 4)]);
  script.do('TE', [store(reg(REG.GCMD), 4, 1n << 31n), load(reg(REG.GSTS), 4)]);
  fill(script);
  return script.steps.flatMap(({ operations, look }) => {
    const answers = machine.run(operations);
    return look === undefined ? [] : [look(answers)];
  });
}

describe('a request of the VT-d oracle', () => {
  const asked = (rid: number) => ({ rid, pasid: -1, access: 1, address: 0x1000n });

  it('shows the fault that it made', () => {
    const [first] = outcomes((script) => request(script, asked(0x10)));
    expect(first).toMatchObject({ translated: 0, fault: 'LRT.2', SID: 0x10, FI: 0x1000n });
  });

  it('does not show the record that another one has left in place as its own', () => {
    const [first, second, third] = outcomes((script) => {
      request(script, asked(0x10), true);
      request(script, asked(0x20));
      request(script, asked(0x30));
    });
    expect(first).toMatchObject({ fault: 'LRT.2', SID: 0x10 });
    expect(second).toEqual({
      ...{ translated: 0, fault: 'pending', SID: 0x10, overwritten: 0 },
      ...{ FSTS: 3n, 'FECTL.IP': first['FECTL.IP'] },
    });
    expect(third).toMatchObject({ fault: 'LRT.2', SID: 0x30 });
  });
});
