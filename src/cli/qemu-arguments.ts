import { ARCH, ARCHES, type Arch } from './arch.js';
import { CliError, EXIT } from './context.js';

/** Our device's options, as `viommu qemu` takes them. Undefined: the device's own default. */
export interface DeviceChoice {
  readonly name?: string;
  readonly cachingMode?: boolean;
  readonly scalableMode?: boolean;
  readonly firstStage?: boolean;
  readonly awBits?: number;
  readonly stages?: string;
  readonly granules?: string;
  readonly oas?: number;
  readonly ssidBits?: number;
  /** Further properties of the device; no option of `viommu qemu` sets them. */
  readonly properties?: Readonly<Record<string, string>>;
}

/** Choices that are a property of the device under a name of their own. */
type Named = Exclude<keyof DeviceChoice, 'properties'>;

/** The device's properties for these options, in the order in which they are written. */
const PROPERTIES: Readonly<Record<Arch, { readonly [key in Named]?: string }>> = {
  amd64: {
    cachingMode: 'caching-mode',
    scalableMode: 'scalable-mode',
    firstStage: 'first-stage',
    awBits: 'aw-bits',
    name: 'name',
  },
  arm64: { stages: 'stages', granules: 'granules', oas: 'oas', ssidBits: 'ssid-bits', name: 'name' },
};

/** Huge pages for guest RAM: of this size, or of the system's usual one. */
export type HugePageChoice = string | true;

const SIZE = /^[1-9][0-9]*[MG]$/i;

const onOff = (value: boolean): string => (value ? 'on' : 'off');

/** A value inside one of QEMU's comma-separated options: a comma is doubled. */
function escapeValue(value: string): string {
  return value.replaceAll(',', ',,');
}

/**
 * `viommu-vtd,socket=…` or `viommu-smmuv3,socket=…` with what the user chose.
 * @throws {CliError} for an option that the device of this architecture does not have.
 */
export function deviceOption(arch: Arch, socket: string, choice: DeviceChoice): string {
  const { device } = ARCH[arch];
  const parts = [device, `socket=${escapeValue(socket)}`];
  const properties = Object.entries(PROPERTIES[arch]) as [Named, string][];
  for (const [key, property] of properties) {
    const value = choice[key];
    if (value === undefined) continue;
    parts.push(`${property}=${typeof value === 'boolean' ? onOff(value) : escapeValue(String(value))}`);
  }
  for (const [key, value] of Object.entries(choice.properties ?? {}))
    parts.push(`${key}=${escapeValue(value)}`);
  for (const [key, value] of Object.entries(choice)) {
    if (value === undefined || key === 'properties' || key in PROPERTIES[arch]) continue;
    const option = key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
    throw new CliError(`--${option} is no option of ${device}, the IOMMU of ${arch} machines`, EXIT.USAGE);
  }
  return parts.join(',');
}

/** Our device in the user's own arguments. */
interface OwnDevice {
  readonly arch: Arch;
  /** Index of the value that follows `-device`. */
  readonly index: number;
  readonly socket: string | undefined;
  readonly json: boolean;
}

/** Finds our device among QEMU arguments, in either of QEMU's two notations. */
export function findDevice(args: readonly string[]): OwnDevice | undefined {
  for (let index = 1; index < args.length; index++) {
    const flag = args[index - 1];
    if (flag !== '-device' && flag !== '--device') continue;
    const value = args[index] ?? '';
    const json = value.trimStart().startsWith('{');
    const { driver, socket } = json ? fromJson(value) : fromText(value);
    const arch = ARCHES.find((one) => ARCH[one].device === driver);
    if (arch !== undefined) return { arch, index, socket, json };
  }
  return undefined;
}

interface Wanted {
  readonly driver: string | undefined;
  readonly socket: string | undefined;
}

function fromText(text: string): Wanted {
  const [first = '', ...options] = splitOptions(text);
  const socket = options.find((option) => option.startsWith('socket='))?.slice('socket='.length);
  return { driver: first.replace(/^driver=/, ''), socket };
}

function fromJson(text: string): Wanted {
  try {
    const { driver, socket } = JSON.parse(text) as Record<string, unknown>;
    const word = (value: unknown): string | undefined => (typeof value === 'string' ? value : undefined);
    return { driver: word(driver), socket: word(socket) };
  } catch {
    return { driver: undefined, socket: undefined }; // QEMU says what is wrong with it
  }
}

/** Splits at single commas; a doubled one is a comma of the value. */
function splitOptions(text: string): string[] {
  return text.split(/(?<!,),(?!,)/).map((part) => part.replaceAll(',,', ','));
}

/**
 * The architecture of the machine that a user describes: by our device if it is named, else by the
 * program, else by the machine type. Undefined if none of these says.
 */
export function archOf(args: readonly string[], program: string | undefined): Arch | undefined {
  const own = findDevice(args)?.arch;
  if (own !== undefined) return own;
  const name = program?.split('/').at(-1) ?? '';
  const byName = ARCHES.find((arch) => name.includes(ARCH[arch].qemu));
  if (byName !== undefined) return byName;
  const types = args
    .filter((_, index) => ['-machine', '-M', '--machine'].includes(args[index - 1] ?? ''))
    .map((value) => /^(?:type=)?(?:pc-)?([a-z0-9]+)/.exec(value)?.[1]);
  return ARCHES.find((arch) => types.includes(ARCH[arch].machineType));
}

/**
 * QEMU's arguments with our device. If the user has written the device, it gets the socket unless
 * it names one. Otherwise ours comes first, before the devices that it translates for. With
 * `memory`, guest RAM that the daemon can map is added.
 * @throws {CliError} when the user wrote the device and also gave options for it here.
 */
export function qemuArguments(
  args: readonly string[],
  arch: Arch,
  socket: string,
  choice: DeviceChoice,
  memory: string | undefined,
  hugePages?: HugePageChoice,
): string[] {
  const own = findDevice(args);
  if (memory === undefined && hugePages !== undefined) {
    throw new CliError('--huge-pages is about the RAM of --memory, which is not given', EXIT.USAGE);
  }
  const ram = memory === undefined ? [] : memoryArguments(args, memory, hugePages);
  if (own === undefined) return ['-device', deviceOption(arch, socket, choice), ...ram, ...args];
  if (Object.values(choice).some((value) => value !== undefined)) {
    throw new CliError(
      `the QEMU arguments have their own -device ${ARCH[own.arch].device}: put its options there, not before the "--"`,
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

/** Bytes of a size in M or G. */
function sizeOf(text: string): number {
  return Number.parseInt(text, 10) * 2 ** (text.toUpperCase().endsWith('G') ? 30 : 20);
}

/** Properties of a memory backend of huge pages. */
function hugePageProperties(memory: string, size: HugePageChoice | undefined): string {
  if (size === undefined) return '';
  if (size === true) return ',hugetlb=on';
  if (!SIZE.test(size)) throw new CliError(`--huge-pages ${size}: not a size like 2M or 1G`, EXIT.USAGE);
  if (sizeOf(memory) % sizeOf(size) !== 0) {
    throw new CliError(`--memory ${memory} is no whole number of pages of ${size}`, EXIT.USAGE);
  }
  return `,hugetlb=on,hugetlbsize=${size}`;
}

function memoryArguments(
  args: readonly string[],
  memory: string,
  hugePages: HugePageChoice | undefined,
): string[] {
  if (!SIZE.test(memory)) {
    throw new CliError(`--memory ${memory}: not a size like 512M or 4G`, EXIT.USAGE);
  }
  const huge = hugePageProperties(memory, hugePages);
  if (args.includes('-m')) throw new CliError("--memory and QEMU's -m cannot both be given", EXIT.USAGE);
  return [
    ...['-object', `memory-backend-memfd,id=viommu-ram,size=${memory},share=on${huge}`],
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
