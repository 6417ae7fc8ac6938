/** UEFI firmware for arm64 guests, unpacked and not installed: with it they boot with ACPI. */
import { cpSync, existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { capture, SetupError } from './exec.mjs';

const PACKAGE = 'qemu-efi-aarch64';
/** Of the two forms in the package the one that `-bios` takes. */
const FILE = 'QEMU_EFI.fd';

/** @returns {Promise<string>} path of the firmware */
export async function ensureArmFirmware(cache, hostApt) {
  const directory = await cache.directory('firmware-arm64', async (target) => {
    const scratch = cache.scratch('firmware-deb');
    const [deb] = await hostApt.download('fetching UEFI firmware for arm64', [PACKAGE], scratch);
    capture('dpkg', ['-x', deb, scratch]);
    const file = join(scratch, 'usr/share', PACKAGE, FILE);
    if (!existsSync(file)) {
      throw new SetupError(`${PACKAGE} has no ${FILE} in it: name a firmware of your own with --firmware.`);
    }
    cpSync(file, join(target, FILE));
    rmSync(scratch, { recursive: true, force: true });
  });
  return join(directory, FILE);
}
