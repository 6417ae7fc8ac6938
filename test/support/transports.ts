import { afterAll, afterEach, beforeAll, describe } from 'vitest';
import { Daemon } from './daemon.js';
import { daemonRig, directRig, type Options, type Rig } from './rig.js';

/**
 * Runs the same tests twice: with the model called directly, and with a real daemon over its socket. Every rig
 * is unplugged after its test.
 */
export function onBothTransports(name: string, body: (rig: (options?: Options) => Rig) => void): void {
  describe(`${name}: model called directly`, () => {
    body(directRig);
  });
  describe(`${name}: daemon over a socket`, () => {
    let daemon: Daemon | undefined;
    const open: Rig[] = [];
    beforeAll(async () => {
      daemon = await Daemon.start();
    });
    afterEach(() => {
      for (const rig of open.splice(0)) rig.close();
    });
    afterAll(async () => {
      await daemon?.dispose();
    });
    body((options) => {
      const rig = daemonRig((daemon as Daemon).socket)(options);
      open.push(rig);
      return rig;
    });
  });
}
