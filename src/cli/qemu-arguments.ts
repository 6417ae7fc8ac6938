import { CliError, EXIT } from './context.js';

/** Our device's options, as `viommu qemu` takes them. Undefined = the device's own default. */
export interface DeviceChoice {
  readonly cachingMode?: boolean;
  readonly scalableMode?: boolean;
  readonly awBits?: number;
  readonly name?: string;
  /** Further properties of the device; no option of `viommu qemu` sets them. */
  readonly properties?: Readonly<Record<string, string>>;
}

export const DEVICE = 'viommu-vtd';

const onOff = (value: boolean): string => (value ? 'on' : 'off');

/** A value inside one of QEMU's comma-separated options: a comma is doubled. */
function escapeValue(value: string): string {
  return value.replaceAll(',', ',,');
}

/** `viommu-vtd,socket=…` with what the user chose. */
export function deviceOption(socket: string, choice: DeviceChoice): string {
  const parts = [DEVICE, `socket=${escapeValue(socket)}`];
  if (choice.cachingMode !== undefined) parts.push(`caching-mode=${onOff(choice.cachingMode)}`);
  if (choice.scalableMode !== undefined) parts.push(`scalable-mode=${onOff(choice.scalableMode)}`);
  if (choice.awBits !== undefined) parts.push(`aw-bits=${choice.awBits}`);
  if (choice.name !== undefined) parts.push(`name=${escapeValue(choice.name)}`);
  for (const [key, value] of Object.entries(choice.properties ?? {}))
    parts.push(`${key}=${escapeValue(value)}`);
  return parts.join(',');
}

/** The user's own `-device viommu-vtd`, where there is one. */
export interface OwnDevice {
  /** Index of the value that follows `-device`. */
  readonly index: number;
  readonly socket: string | undefined;
  readonly json: boolean;
}

/** Finds a `-device viommu-vtd` among QEMU arguments, in either of QEMU's two notations. */
export function findDevice(args: readonly string[]): OwnDevice | undefined {
  for (let index = 1; index < args.length; index++) {
    const flag = args[index - 1];
    if (flag !== '-device' && flag !== '--device') continue;
    const value = args[index] ?? '';
    if (value.trimStart().startsWith('{')) {
      const own = fromJson(value);
      if (own !== undefined) return { index, json: true, ...own };
    } else {
      const [driver, ...options] = splitOptions(value);
      if (driver !== DEVICE && driver !== `driver=${DEVICE}`) continue;
      const socket = options.find((option) => option.startsWith('socket='))?.slice('socket='.length);
      return { index, json: false, socket };
    }
  }
  return undefined;
}

function fromJson(text: string): { socket: string | undefined } | undefined {
  try {
    const value = JSON.parse(text) as Record<string, unknown>;
    if (value['driver'] !== DEVICE) return undefined;
    const socket = value['socket'];
    return { socket: typeof socket === 'string' ? socket : undefined };
  } catch {
    return undefined; // QEMU says what is wrong with it
  }
}

/** Splits at single commas; a doubled one is a comma of the value. */
function splitOptions(text: string): string[] {
  return text.split(/(?<!,),(?!,)/).map((part) => part.replaceAll(',,', ','));
}

/**
 * QEMU's arguments with our device: the user's own gets the socket where it names none; otherwise ours comes
 * first, so that every other device finds it. With `memory`, guest RAM that the daemon can map.
 * @throws {CliError} when the user wrote the device and also gave options for it here.
 */
export function qemuArguments(
  args: readonly string[],
  socket: string,
  choice: DeviceChoice,
  memory: string | undefined,
): string[] {
  const own = findDevice(args);
  const ram = memory === undefined ? [] : memoryArguments(args, memory);
  if (own === undefined) return ['-device', deviceOption(socket, choice), ...ram, ...args];
  if (Object.values(choice).some((value) => value !== undefined)) {
    throw new CliError(
      `the QEMU arguments have their own -device ${DEVICE}: put its options there, not before the "--"`,
      EXIT.USAGE,
    );
  }
  const changed = [...args];
  if (own.socket === undefined) changed[own.index] = withSocket(args[own.index] ?? '', own.json, socket);
  return [...ram, ...changed];
}

function withSocket(value: string, json: boolean, socket: string): string {
  if (!json) return `${value},socket=${escapeValue(socket)}`;
  return JSON.stringify({ ...(JSON.parse(value) as Record<string, unknown>), socket });
}

function memoryArguments(args: readonly string[], memory: string): string[] {
  if (!/^[1-9][0-9]*[MG]$/i.test(memory)) {
    throw new CliError(`--memory ${memory}: not a size like 512M or 4G`, EXIT.USAGE);
  }
  if (args.includes('-m')) throw new CliError("--memory and QEMU's -m cannot both be given", EXIT.USAGE);
  return [
    ...['-object', `memory-backend-memfd,id=viommu-ram,size=${memory},share=on`],
    ...['-m', memory, '-machine', 'memory-backend=viommu-ram'],
  ];
}

/** One line that a shell reads back as these words. */
export function shellLine(words: readonly string[]): string {
  return words.map(quote).join(' ');
}

function quote(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}
