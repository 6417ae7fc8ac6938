import { expect, it } from 'vitest';
import { SimVm } from '../../src/sim/vm.js';
import { Progress } from '../guests/progress.js';
import { Daemon, eventually } from '../support/daemon.js';

/** How tests of guests tell one that is slow from one that is stuck. */
it('a guest is at work while the counters of its session move', async () => {
  const daemon = await Daemon.start();
  let moved = 0;
  const progress = new Progress(`${daemon.socket}.ctl`, 'busy', () => moved++, 20);
  const vm = SimVm.connect(daemon.socket, { name: 'busy' });
  await eventually(() => moved > 0, 'the first report');
  for (let n = 0; n < 3; n++) {
    const before = moved;
    vm.writeRegister(0x34, 4, 0n);
    await eventually(() => moved > before, 'a write to be counted');
  }
  expect(progress.counters).toContain('"writesHandled":3');
  progress.stop();
  vm.close();
  await daemon.dispose();
});
