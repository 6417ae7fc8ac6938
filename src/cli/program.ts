import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { CONTAINERS, DEVICE_KINDS, GUEST_MODELS, HOST_KINDS, MODES } from '../assignment/request.js';
import { LOG_LEVELS, type LogThreshold } from '../observe/log.js';
import { ARCHES } from './arch.js';
import { type CliContext, CliError, EXIT, messageOf } from './context.js';
import { demo } from './demo.js';
import * as help from './help.js';
import { diff, dump, list, report, watch } from './inspect.js';
import { LACKS, type Lack, plan } from './plan.js';
import { qemu } from './qemu.js';
import { serve } from './serve.js';
import { CACHE_POLICIES, type Services } from './services.js';
import { watchDiff } from './watch-diff.js';

/**
 * Runs one command line (without program name) and returns its exit code. Errors are printed, not
 * thrown; only our own defects come out as exceptions.
 */
export async function run(context: CliContext, services: Services, argv: readonly string[]): Promise<number> {
  let exitCode: number = EXIT.OK;
  const action =
    <A extends unknown[]>(command: (...args: A) => Promise<number>) =>
    async (...args: A): Promise<void> => {
      exitCode = await command(...args);
    };
  const program = build(context, services, action);
  try {
    await program.parseAsync(argv, { from: 'user' });
    return exitCode;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.OK : EXIT.USAGE;
    if (error instanceof CliError || isCoded(error)) {
      context.stderr.write(`viommu: ${messageOf(error)}\n`);
      return error instanceof CliError ? error.exitCode : EXIT.FAILED;
    }
    throw error;
  }
}

/** A coded error of the table is something that happened to the user, not a defect. */
function isCoded(error: unknown): boolean {
  return error instanceof Error && (error.name === 'CodedError' || error.name === 'SystemError');
}

type Action = <A extends unknown[]>(
  command: (...args: A) => Promise<number>,
) => (...args: A) => Promise<void>;

function build(context: CliContext, services: Services, action: Action): Command {
  const program = new Command('viommu');
  program
    .description(help.DESCRIPTION)
    .version(context.version, '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print help')
    .helpCommand('help [command]', 'print the help of a command')
    .addHelpText('after', help.EXAMPLES)
    .showSuggestionAfterError(true)
    .configureOutput({
      writeOut: (text) => context.stdout.write(text),
      writeErr: (text) => context.stderr.write(text),
      getOutHelpWidth: () => Math.min(context.stdout.columns ?? 100, 110),
      getErrHelpWidth: () => Math.min(context.stderr.columns ?? 100, 110),
    })
    .exitOverride();
  addDemo(program, context, services, action);
  addServe(program, context, services, action);
  addQemu(program, context, services, action);
  addInspect(program, context, action);
  addPlan(program, context, action);
  return program;
}

/** A subcommand that inherits output and exit handling. */
function command(program: Command, usage: string, description: string, examples: string): Command {
  return program.command(usage).description(description).addHelpText('after', examples);
}

/** `level` undefined: the command has a default of its own. */
function withLog(target: Command, level: LogThreshold | undefined): Command {
  return target
    .addOption(
      new Option('--log-level <level>', 'least important line to log').choices(LOG_LEVELS).default(level),
    )
    .option('--log-json', 'log one JSON object a line', false);
}

function withPolicy(target: Command): Command {
  return target.addOption(
    new Option('--cache-policy <policy>', help.CACHE_POLICY).choices(CACHE_POLICIES).default('faithful'),
  );
}

function withAssignment(target: Command): Command {
  return target
    .addOption(new Option('--mode <mode>', 'how assigned devices are served').choices(MODES).default('auto'))
    .addOption(
      new Option('--host <kind>', "the host's IOMMU: a mode it cannot do is told at once").choices(
        HOST_KINDS,
      ),
    )
    .addOption(new Option('--device <kind>', 'what is assigned, for the same').choices(DEVICE_KINDS));
}

function addDemo(program: Command, context: CliContext, services: Services, action: Action): void {
  const target = command(program, 'demo', help.DEMO, help.DEMO_EXAMPLES)
    .option('--sim', 'a simulated machine instead of QEMU; needs nothing but Node')
    .option('--kernel-version <series>', 'prepared Debian guest kernel: 6.12 or 6.1', '6.12')
    .addOption(new Option('--arch <name>', "the guest's architecture").choices(ARCHES).default('amd64'))
    .addOption(
      new Option('--mode <mode>', 'amd64: which VT-d mode the guest uses').choices(['legacy', 'scalable']),
    )
    .option('--strict', 'iommu.strict=1: the guest invalidates at each unmap')
    .option('--caching-mode', 'amd64: CAP_REG.CM')
    .option('--acpi', 'arm64: boot through UEFI firmware, so that the guest uses ACPI')
    .option('--firmware <file>', 'arm64: your own UEFI firmware')
    .addOption(new Option('--accel <name>', 'how QEMU runs the guest').choices(['tcg', 'kvm']).default('tcg'))
    .option('--mib <n>', 'MiB to write to each disk and read back', natural)
    .option('--qemu <file>', 'your own QEMU')
    .option('--bridge <file>', 'your own bridge, built for it')
    .option('--kernel <file>', 'your own guest kernel, with --initramfs')
    .option('--initramfs <file>', 'and its initramfs')
    .option('--keep-log <file>', "keep the guest's whole console there")
    .option('--verbose', "show the guest's whole console");
  withLog(withPolicy(target), undefined).action(action((options) => demo(context, services, options)));
}

function addServe(program: Command, context: CliContext, services: Services, action: Action): void {
  const target = command(program, 'serve', help.SERVE, help.SERVE_EXAMPLES)
    .option(
      '--socket <path>',
      'where virtual machines connect (default: viommu.sock in the runtime directory)',
    )
    .option('--control <path>', 'control channel (default: the socket\'s path with ".ctl")');
  withLog(withAssignment(withPolicy(target)), 'info').action(
    action((options) => serve(context, services, options)),
  );
}

function addQemu(program: Command, context: CliContext, services: Services, action: Action): void {
  const target = command(program, 'qemu', help.QEMU, help.QEMU_EXAMPLES)
    .usage('[options] -- <qemu arguments>')
    .argument('[qemu...]', 'arguments for QEMU, after "--"')
    .option('--qemu <file>', 'QEMU to run (default: the prepared one, else qemu-system-x86_64 from PATH)')
    .option('--bridge <file>', 'bridge to load into it (default: the prepared one)')
    .option('--attach <path>', 'use the daemon that "viommu serve" runs on this socket')
    .option('--control <path>', 'control channel of the daemon started here')
    .addOption(new Option('--arch <name>', 'of the guest (default: what the arguments say)').choices(ARCHES))
    .option(
      '--caching-mode',
      'VT-d, CAP_REG.CM: the guest announces new mappings too; needed for VFIO devices',
    )
    .option('--scalable-mode', 'VT-d, ECAP_REG.SMTS: offer scalable mode (PASID tables)')
    .option('--no-scalable-mode', 'VT-d: legacy mode only')
    .option('--first-stage', 'VT-d, ECAP_REG.FSTS: first-stage tables too, in scalable mode')
    .option('--no-first-stage', 'VT-d: second-stage tables only; for devices that are shadowed')
    .option('--aw-bits <bits>', 'VT-d: widest input address: 39, 48 or 57', addressWidth)
    .addOption(
      new Option('--stages <which>', 'SMMUv3, IDR0.S1P and S2P: stages of translation').choices([
        '1',
        '2',
        'nested',
      ]),
    )
    .option('--granules <list>', 'SMMUv3, IDR5: some of 4k,16k,64k')
    .option('--oas <bits>', 'SMMUv3, IDR5.OAS: output address size, 32 to 52', natural)
    .option('--ssid-bits <n>', 'SMMUv3, IDR1.SSIDSIZE: 0 to 20', natural)
    .option('--name <name>', 'name of this machine in lists, logs and dumps')
    .option('--memory <size>', 'guest RAM of this size as a shared memfd: adds -m, -object and -machine')
    .option('--huge-pages [size]', 'with --memory: guest RAM of huge pages, of this size or the usual one')
    .option('--print', 'print the line to run instead of running it')
    .option('--report <file>', 'write the counters of the session there as JSON at the end');
  withLog(withAssignment(withPolicy(target)), 'warn').action(
    action((args: string[], options) => qemu(context, services, options, args)),
  );
}

function addInspect(program: Command, context: CliContext, action: Action): void {
  const dumpTarget = command(program, 'dump', help.DUMP, help.DUMP_EXAMPLES)
    .option('--rid <bb:dd.f>', 'only the tables of this requester')
    .option('--registers', 'only registers (with --tables: both)')
    .option('--tables', 'only tables')
    .option('--max-leaves <n>', 'most mapped ranges to print for each address space', natural)
    .option('--zeros', 'print fields that are zero, too')
    .option('--ascii', 'draw the tree in ASCII');
  withTarget(dumpTarget).action(action((options) => dump(context, options)));
  const listTarget = command(program, 'list', help.LIST, '');
  listTarget.option('--control <path>', 'only this daemon').option('--json', 'print JSON');
  listTarget.action(action((options) => list(context, options)));
  withTarget(command(program, 'report', help.REPORT, '')).action(
    action((options) => report(context, options)),
  );
  const diffTarget = command(program, 'diff', help.DIFF, help.DIFF_EXAMPLES)
    .option('--rid <bb:dd.f>', 'only this device')
    .option('--max-leaves <n>', 'most differences to print', natural)
    .option('--watch', 'check every completion, until Ctrl-C or the end of the machine');
  withTarget(diffTarget).action(
    action((options) => (options.watch === true ? watchDiff(context, options) : diff(context, options))),
  );
  withTarget(command(program, 'watch', help.WATCH, '')).action(action((options) => watch(context, options)));
}

function addPlan(program: Command, context: CliContext, action: Action): void {
  command(program, 'plan', help.PLAN, help.PLAN_EXAMPLES)
    .addOption(new Option('--host <kind>', 'which kind of host (default: each)').choices(HOST_KINDS))
    .addOption(new Option('--device <kind>', 'only this row').choices(DEVICE_KINDS))
    .addOption(
      new Option('--mode <mode>', 'how a guest with a vIOMMU is served').choices(MODES).default('auto'),
    )
    .addOption(
      new Option('--guest <model>', "its vIOMMU (default: the host's kind)").choices(
        GUEST_MODELS.filter((model) => model !== 'none'),
      ),
    )
    .addOption(
      new Option('--container <kind>', 'what holds the mappings').choices(CONTAINERS).default('iommufd'),
    )
    .option('--without <list>', `what the host lacks, of ${LACKS.join(', ')}`, lackList, [])
    .option('--json', 'print JSON')
    .action(action(async (options) => plan(context, options)));
}

function withTarget(target: Command): Command {
  return target
    .option('--vm <name>', 'which machine, when several are connected (see "viommu list")')
    .option('--control <path>', 'control channel of the daemon (default: the only one that runs)')
    .option('--json', 'print JSON');
}

function addressWidth(text: string): number {
  if (!['39', '48', '57'].includes(text)) throw new InvalidArgumentError('It is 39, 48 or 57.');
  return Number.parseInt(text, 10);
}

function lackList(text: string): readonly Lack[] {
  return text.split(',').map((name) => {
    const found = LACKS.find((lack) => lack === name);
    if (found === undefined) throw new InvalidArgumentError(`It lists some of ${LACKS.join(', ')}.`);
    return found;
  });
}

function natural(text: string): number {
  if (!/^[0-9]+$/.test(text)) throw new InvalidArgumentError('It is not a number.');
  return Number.parseInt(text, 10);
}
