import { spawn } from 'node:child_process';
import { afterEach, describe, expect, it } from 'vitest';
import { prepared } from '../guests/support.js';
import { viommu } from '../guests/viommu.js';
import { Daemon, eventually } from '../support/daemon.js';

/** A real QEMU's `-name`, in whatever bytes it comes. */

const ended: (() => Promise<void> | void)[] = [];
afterEach(async () => {
  for (const end of ended.splice(0).reverse()) await end();
});

/** Node's arguments are text; a shell's printf makes any bytes of them. */
function start(daemon: Daemon, name: string, property = ''): { text: string; ended: boolean } {
  const { qemu, bridge } = prepared();
  const seen = { text: '', ended: false };
  const script = `name=$(printf '${name}'); device=$(printf '${property}'); export LD_PRELOAD; LD_PRELOAD="$BRIDGE"
    exec "$QEMU" -machine q35,accel=tcg -m 64 -nodefaults -display none -S -monitor none -name "$name" \\
      -device "viommu-vtd,socket=$SOCKET$device" -device nec-usb-xhci`;
  const env = { ...process.env, QEMU: qemu, BRIDGE: bridge, SOCKET: daemon.socket };
  const child = spawn('/bin/sh', ['-c', script], { env, stdio: ['ignore', 'pipe', 'pipe'] });
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (data: Buffer) => {
      seen.text += data.toString();
    });
  }
  const end = new Promise<void>((resolve) => {
    child.on('close', () => {
      seen.ended = true;
      resolve();
    });
  });
  ended.push(() => {
    child.kill('SIGKILL');
    return end;
  });
  return seen;
}

async function names(daemon: Daemon): Promise<string[]> {
  const { text } = await viommu(daemon, 'list', '--json');
  const [listed] = JSON.parse(text) as { vms: { vm: string }[] }[];
  return (listed?.vms ?? []).map(({ vm }) => vm);
}

const E_ACUTE = '\\303\\251';

describe("QEMU's -name", () => {
  it.each([
    ['a hundred characters of two bytes', `guest=${E_ACUTE.repeat(100)}`, '', 'é'.repeat(64)],
    ['the same, from an odd place', `guest=a${E_ACUTE.repeat(200)}`, '', `a${'é'.repeat(63)}`],
    ['three bytes each', `guest=${'\\342\\202\\254'.repeat(100)}`, '', '€'.repeat(64)],
    ['four bytes each', `guest=${'\\360\\237\\221\\215'.repeat(100)}`, '', '👍'.repeat(64)],
    ['bytes that are no UTF-8', 'guest=caf\\351 \\377\\303', '', 'caf� ��'],
    ['what a terminal obeys', 'guest=\\033[2J\\342\\200\\256x', '', '\\u{1b}[2J\\u{202e}x'],
    ['a comma and spaces', 'guest=My VM,, 1', '', 'My VM, 1'],
    ['another one for the daemon', 'guest=x', `,name=${E_ACUTE.repeat(300)}`, 'é'.repeat(64)],
  ])('may be %s', async (_, name, property, shown) => {
    const daemon = await Daemon.start();
    ended.push(() => daemon.dispose());
    const qemu = start(daemon, name, property);
    const found = await eventually(
      async () => {
        if (qemu.ended) throw new Error(`QEMU ended: ${qemu.text}`);
        const listed = await names(daemon);
        return listed.length > 0 && listed[0] !== 'vm1' ? listed : undefined;
      },
      'the machine to be listed',
      30_000,
    );
    expect(found).toEqual([shown]);
    // It has told of its memory and devices, too.
    await eventually(() => daemon.guestMappings().length > 0, 'the shared page to be mapped');
    expect(qemu.ended).toBe(false);
    expect(qemu.text).toBe('');
  });

  it('may be the same as another one’s', async () => {
    const daemon = await Daemon.start();
    ended.push(() => daemon.dispose());
    for (let machine = 0; machine < 2; machine++) {
      start(daemon, `guest=${E_ACUTE.repeat(100)}`);
      await eventually(
        async () => (await names(daemon)).filter((name) => /^é/.test(name)).length > machine,
        'it',
        30_000,
      );
    }
    expect(await names(daemon)).toEqual(['é'.repeat(64), `${'é'.repeat(64)}-2`]);
  });
});
