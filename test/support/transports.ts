import { afterAll, beforeAll, beforeEach, describe } from 'vitest';
import { SimVm } from '../../src/sim/vm.js';
import { Daemon } from './daemon.js';
import { directRig, type Options, RAM_BYTES, type Rig } from './rig.js';

/**
 * Runs the same tests twice: with the model called directly, and with a real daemon over its
 * socket. There a machine is used again after a reset, which has to leave nothing behind.
 */
export function onBothTransports(
  name: string,
  body: (rig: (options?: Options) => Rig) => void,
  model: 'vtd' | 'smmuv3' = 'vtd',
): void {
  describe(`${name}: model called directly`, () => {
    body((options) => directRig(options, model));
  });
  describe(`${name}: daemon over a socket`, () => {
    let daemon: Daemon | undefined;
    /** Machines by their options; each is reset before a test gets it again. */
    const machines = new Map<string, SimVm>();
    const used = new Set<string>();
    beforeAll(async () => {
      daemon = await Daemon.start();
    });
    beforeEach(() => used.clear());
    afterAll(async () => {
      for (const vm of machines.values()) vm.close();
      await daemon?.dispose();
    });
    body((options = {}) => {
      // A test that asks twice gets two machines.
      let name = JSON.stringify(options);
      while (used.has(name)) name += '+';
      used.add(name);
      let vm = machines.get(name);
      if (vm === undefined) {
        vm = SimVm.connect((daemon as Daemon).socket, { model, options, ramBytes: RAM_BYTES });
        machines.set(name, vm);
      } else vm.reset();
      return { machine: vm };
    });
  });
}
