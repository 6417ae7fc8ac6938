/** HELLO: version, features, model and options, before anything else. */
import { offeredOptions } from '../assignment/offer.js';
import { CodedError } from '../base/errors.js';
import { machineName, plainName } from '../base/text.js';
import { CODEC } from '../wire/codec.js';
import { ALL_FEATURES, CONTROL, CONTROL_MAGIC, FEATURE, type Frame, SHARED, VERSION } from '../wire/frame.js';
import type { Hello } from '../wire/messages.js';
import { expectDescriptors } from './descriptors.js';
import type { Outlet } from './ports.js';
import type { Session } from './session.js';

/** A shared page file above this is a mistake. */
const MAX_SHARED_BYTES = 16 * 1024 * 1024;
/** A peer's own name is for people; longer ones are cut. */
const MAX_NAME = 256;

/** What both sides agreed on. */
export interface Agreement {
  readonly version: number;
  readonly features: number;
  readonly vm: string;
  readonly modelName: string;
  readonly peer: string;
  readonly options: Readonly<Record<string, string>>;
  readonly backend: Outlet;
}

/** Handler of HELLO. Throws `BAD_VERSION`, `UNKNOWN_MODEL`, `BAD_OPTION`, `BAD_SHARED_PAGE`, `…_DESCRIPTOR`. */
export function acceptHello(session: Session, frame: Frame, hello: Hello): void {
  const { ports, settings } = session;
  if (hello.version < 1)
    throw new CodedError('BAD_VERSION', `version ${hello.version}; this daemon speaks ${VERSION}`);
  expectDescriptors(frame, 2);
  const registerBytes = ports.models.modelRegisterBytes(hello.model);
  const queues = (hello.features & FEATURE.QUEUES) !== 0;
  const ringBytes = queues ? SHARED.RING_BYTES : 0;
  const smallest = SHARED.REGISTERS + registerBytes + ringBytes;
  if (hello.sharedBytes < smallest || hello.sharedBytes % 4 !== 0 || hello.sharedBytes > MAX_SHARED_BYTES) {
    throw new CodedError(
      'BAD_SHARED_PAGE',
      `${hello.sharedBytes} bytes; model ${hello.model} needs ${smallest}`,
    );
  }
  const given = { ...settings.modelDefaults, ...hello.options };
  const nesting = (hello.features & FEATURE.NESTING) !== 0;
  const planned =
    nesting && settings.assignment ? offeredOptions(hello.model, given, settings.assignment) : {};
  const options = { ...planned, ...given };
  const page = ports.mapSharedPage(
    frame.descriptors[1] as number,
    hello.sharedBytes,
    registerBytes,
    ringBytes,
  );
  claim(page.control);
  const backend = ports.openBackend(frame.descriptors.shift() as number);
  session.invalidations.open(backend);
  session.deviceTlbs.open((hello.features & FEATURE.ATS) !== 0 ? backend : undefined);
  session.peerCommands.open(queues ? backend : undefined, page);
  session.walks.open((hello.features & FEATURE.WALKS) !== 0 ? backend : undefined);
  session.assigned.open(nesting ? backend : undefined);
  const { memory } = ports;
  const model = ports.models.createModel(hello.model, options, {
    memory,
    registers: page.registers,
    outputs: session.outputs,
    ...(nesting ? { pasids: session.assigned.pasids } : {}),
  });
  const shadows = (hello.features & FEATURE.HOST_BATCH) !== 0;
  const tracking =
    shadows && (hello.features & FEATURE.TRACKING) !== 0 && model.spaces.mapsInSilence === true;
  session.shadowing.open(shadows ? backend : undefined, tracking);
  const agreement: Agreement = {
    version: Math.min(hello.version, VERSION),
    features: hello.features & ALL_FEATURES,
    vm: machineName(hello.vm),
    modelName: hello.model,
    peer: plainName(hello.peer, MAX_NAME),
    options,
    backend,
  };
  session.begin(agreement, model, page);
  const { vm, peer } = agreement;
  ports.log('info', 'connected', { vm, peer, model: hello.model });
  ports.event({ kind: 'hello', vm, model: hello.model, peer });
  session.reply(frame, CODEC.HelloReply, {
    version: agreement.version,
    features: agreement.features,
    session: settings.session,
    registerBytes: model.registerBytes,
  });
}

/** The control page must be ours, or new. Writes are counted from zero. */
function claim(control: Uint32Array): void {
  const magic = control[CONTROL.MAGIC] as number;
  if (magic !== 0 && magic !== CONTROL_MAGIC) {
    throw new CodedError('BAD_SHARED_PAGE', `magic 0x${magic.toString(16)} in the control page`);
  }
  control[CONTROL.MAGIC] = CONTROL_MAGIC;
  Atomics.store(control, CONTROL.HANDLED, 0);
}
