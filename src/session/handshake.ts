/** HELLO: version, features, model and options, before anything else. */
import { offeredOptions } from '../assignment/offer.js';
import { CodedError } from '../base/errors.js';
import { machineName, plainName } from '../base/text.js';
import type { IommuOutputs } from '../device/iommu.js';
import { CODEC } from '../wire/codec.js';
import { ALL_FEATURES, CONTROL, CONTROL_MAGIC, FEATURE, type Frame, SHARED, VERSION } from '../wire/frame.js';
import type { Hello } from '../wire/messages.js';
import type { AssignedDevices } from './assigned.js';
import type { Agreement, Connection } from './connection.js';
import { expectDescriptors } from './descriptor-count.js';
import type { DeviceTlbs } from './device-tlb-requests.js';
import type { InterruptRemapping } from './interrupt-requests.js';
import type { PeerCommands } from './peer-commands.js';
import type { Invalidations } from './peer-invalidations.js';
import type { PeerWalks } from './peer-walks.js';
import type { SessionPorts, SessionSettings } from './ports.js';
import type { Shadowing } from './shadowing.js';

/** A shared page file above this is a mistake. */
const MAX_SHARED_BYTES = 16 * 1024 * 1024;
/** A peer's own name is for people; longer ones are cut. */
const MAX_NAME = 256;

/** What HELLO opens. */
export interface Opened {
  readonly ports: Pick<SessionPorts, 'models' | 'memory' | 'mapSharedPage' | 'openBackend' | 'log' | 'event'>;
  readonly settings: SessionSettings;
  readonly connection: Connection;
  readonly outputs: IommuOutputs;
  readonly invalidations: Invalidations;
  readonly interrupts: InterruptRemapping;
  readonly deviceTlbs: DeviceTlbs;
  readonly peerCommands: PeerCommands;
  readonly walks: PeerWalks;
  readonly assigned: AssignedDevices;
  readonly shadowing: Shadowing;
}

/**
 * Handler of HELLO. Throws `BAD_VERSION`, `UNKNOWN_MODEL`, `BAD_OPTION`, `BAD_SHARED_PAGE`,
 * `…_DESCRIPTOR`.
 */
export function acceptHello(opened: Opened, frame: Frame, hello: Hello): void {
  const { ports, settings, connection } = opened;
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
  opened.invalidations.open(backend);
  const remapping = (hello.features & FEATURE.INTERRUPT_REMAPPING) !== 0;
  opened.interrupts.open(remapping ? backend : undefined);
  opened.deviceTlbs.open((hello.features & FEATURE.ATS) !== 0 ? backend : undefined);
  opened.peerCommands.open(queues ? backend : undefined, page);
  opened.walks.open((hello.features & FEATURE.PEER_WALKS) !== 0 ? backend : undefined);
  opened.assigned.open(nesting ? backend : undefined);
  const { memory } = ports;
  const model = ports.models.createModel(hello.model, options, {
    memory,
    registers: page.registers,
    outputs: opened.outputs,
    ...(nesting ? { pasids: opened.assigned.pasids } : {}),
  });
  if (model.interrupts !== undefined && !remapping) {
    throw new CodedError('BAD_OPTION', 'intremap=on: this peer does not remap interrupts (feature 9)');
  }
  // Only what the peer does not keep is asked, so a comparison with memory each time is cheap.
  model.interrupts?.check?.(true);
  const shadows = (hello.features & FEATURE.HOST_BATCH) !== 0;
  const tracking =
    shadows && (hello.features & FEATURE.TRACKING) !== 0 && model.spaces.mapsInSilence === true;
  opened.shadowing.open(shadows ? backend : undefined, tracking);
  const agreement: Agreement = {
    version: Math.min(hello.version, VERSION),
    features: hello.features & ALL_FEATURES,
    vm: machineName(hello.vm),
    modelName: hello.model,
    peer: plainName(hello.peer, MAX_NAME),
    options,
    backend,
  };
  connection.begin(agreement, model, page);
  const { vm, peer } = agreement;
  ports.log('info', 'connected', { vm, peer, model: hello.model });
  ports.event({ kind: 'hello', vm, model: hello.model, peer });
  connection.reply(frame, CODEC.HelloReply, {
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
