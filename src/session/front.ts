/** What the front channel may ask, by message number, and which part of the session handles it. */
import type { Iommu } from '../device/iommu.js';
import { CODEC, type Codec } from '../wire/codec.js';
import { FEATURE, type Frame, MESSAGE } from '../wire/frame.js';
import type * as M from '../wire/messages.js';
import type { Agreement } from './connection.js';
import type { DeviceTable } from './devices.js';
import { acceptHello, type Opened } from './handshake.js';
import type { HostAnswers } from './host-answers.js';
import type { InterruptRemapping } from './interrupt-requests.js';
import type { MemoryTable } from './memory-table.js';
import type { RegisterWindow } from './register-window.js';
import type { Requests } from './requests.js';

const DONE: M.Status = { code: 0, text: '' };

/** The parts that handle what is asked. */
interface FrontParts extends Opened {
  readonly devices: DeviceTable;
  readonly memory: MemoryTable;
  readonly registers: RegisterWindow;
  readonly requests: Requests;
  readonly interrupts: InterruptRemapping;
  readonly answers: HostAnswers;
}

type Handler = (frame: Frame, bytes: Uint8Array) => void;

interface FrontEntry {
  readonly handle: Handler;
  /** Features of which one must be in force; 0 = none needed. */
  readonly feature: number;
  /** Whether the handler looks after descriptors itself; otherwise none may come. */
  readonly descriptors: boolean;
  /** Whether it may change what a completion waits for, or what the peer may do by itself. */
  readonly changes: boolean;
}

function body<T extends object>(codec: Codec<T>, handle: (frame: Frame, message: T) => void): Handler {
  return (frame, bytes) => handle(frame, codec.decode(bytes, frame.start, frame.end));
}

const entry = (handle: Handler, feature = 0, descriptors = false): FrontEntry => ({
  ...{ handle, feature, descriptors, changes: true },
});

/** A handler that changes nothing, or marks the completions itself where it does. */
const look = (handle: Handler, feature = 0): FrontEntry => ({
  ...{ handle, feature, descriptors: false, changes: false },
});

const SHARED_OR_REMOTE = FEATURE.SHARED_MEMORY | FEATURE.REMOTE_MEMORY;

/** By message number. */
export type FrontTable = readonly (FrontEntry | undefined)[];

/** The handlers of one session. */
export function frontTable(parts: FrontParts): FrontTable {
  const table: (FrontEntry | undefined)[] = [];
  const { memory, registers, requests, interrupts } = parts;
  table[MESSAGE.HELLO] = entry(
    body(CODEC.Hello, (frame, m) => acceptHello(parts, frame, m)),
    0,
    true,
  );
  table[MESSAGE.MEM_ADD] = entry(
    body(CODEC.MemAdd, (frame, m) => memory.add(frame, m)),
    SHARED_OR_REMOTE,
    true,
  );
  table[MESSAGE.MEM_REMOVE] = entry(
    body(CODEC.MemRemove, (frame, m) => memory.remove(frame, m)),
    SHARED_OR_REMOTE,
  );
  table[MESSAGE.REG_WRITE] = entry(body(CODEC.RegWrite, (frame, m) => registers.write(frame, m)));
  table[MESSAGE.REG_READ] = look(body(CODEC.RegRead, (frame, m) => registers.read(frame, m)));
  table[MESSAGE.TRANSLATE] = look(body(CODEC.Translate, (frame, m) => requests.translate(frame, m)));
  table[MESSAGE.REMAP_INTERRUPT] = look(
    body(CODEC.RemapInterrupt, (frame, m) => interrupts.remap(frame, m)),
    FEATURE.INTERRUPT_REMAPPING,
  );
  table[MESSAGE.REPLAY] = look(
    body(CODEC.Replay, (frame, m) => requests.replay(frame, m)),
    FEATURE.NOTIFIERS,
  );
  table[MESSAGE.PAGE_REQUEST] = entry(
    body(CODEC.PageRequest, (_, m) => requests.pageRequest(m)),
    FEATURE.PRI,
  );
  // It wakes this session up, which then finds the mailbox filled.
  table[MESSAGE.MAIL] = look(
    body(CODEC.Mail, () => {}),
    FEATURE.MAILBOX,
  );
  // The ring was emptied before this was handled.
  table[MESSAGE.QUEUE_RAN] = look(
    body(CODEC.QueueRan, () => {}),
    FEATURE.QUEUES,
  );
  addDevices(table, parts);
  addHost(table, parts);
  return table;
}

function addDevices(table: (FrontEntry | undefined)[], parts: FrontParts): void {
  const { connection, ports, devices, invalidations, walks, deviceTlbs, assigned, shadowing } = parts;
  table[MESSAGE.DEVICE_ADDED] = entry(
    body(CODEC.DeviceAdded, (_, { device, rid, name }) => {
      const before = devices.find(device)?.rid ?? rid;
      devices.add(device, rid, name);
      if (before !== rid) invalidations.renumbered(device, before);
      walks.tellAgain();
      assigned.renumber(device, rid);
      shadowing.notified(device, connection.model as Iommu);
      ports.event({ kind: 'deviceAdded', device, rid, name });
    }),
  );
  table[MESSAGE.DEVICE_REMOVED] = entry(
    body(CODEC.DeviceRemoved, (_, { device }) => {
      devices.remove(device);
      assigned.remove(device);
      shadowing.notified(device, connection.model as Iommu);
      ports.event({ kind: 'deviceRemoved', device });
    }),
  );
  table[MESSAGE.NOTIFIER] = entry(
    body(CODEC.Notifier, (_, { device, flags }) => {
      devices.notify(device, flags);
      shadowing.notified(device, connection.model as Iommu);
    }),
    FEATURE.NOTIFIERS,
  );
  table[MESSAGE.RESET] = entry(
    body(CODEC.Reset, (frame) => {
      const model = connection.model as Iommu;
      model.reset();
      deviceTlbs.forget();
      invalidations.invalidateAll();
      parts.interrupts.invalidateAll();
      shadowing.shadow.markAllStale(model);
      assigned.reset();
      ports.event({ kind: 'reset' });
      parts.answers.replyWhenDone(frame, CODEC.Status, DONE);
    }),
  );
}

function addHost(table: (FrontEntry | undefined)[], parts: FrontParts): void {
  const { connection, assigned, shadowing, answers } = parts;
  table[MESSAGE.HOST_LISTEN] = entry(
    body(CODEC.HostListen, (_, m) => shadowing.listen(m)),
    FEATURE.HOST_BATCH,
  );
  table[MESSAGE.HOST_SETTLE] = entry(
    body(CODEC.HostSettle, (frame) => answers.replyWhenSettled(frame)),
    FEATURE.HOST_BATCH,
  );
  table[MESSAGE.TABLE_WRITE] = entry(
    body(CODEC.TableWrite, (frame, m) => {
      shadowing.stored(m);
      answers.replyWhenSettled(frame);
    }),
    FEATURE.TRACKING,
  );
  table[MESSAGE.HOST_DEVICE] = entry(
    body(CODEC.HostDevice, (frame, m) => {
      const { modelName, options } = connection.agreement as Agreement;
      const reply = assigned.announce(m, modelName, options);
      shadowing.notified(m.device, connection.model as Iommu);
      connection.reply(frame, CODEC.HostDeviceReply, reply);
    }),
    FEATURE.NESTING,
  );
  table[MESSAGE.HOST_EVENT] = entry(
    body(CODEC.HostEvent, (_, m) => assigned.hostEvent(m)),
    FEATURE.NESTING,
  );
  table[MESSAGE.HOST_PAGE_REQUEST] = entry(
    body(CODEC.HostPageRequest, (_, m) => assigned.pageRequest(m)),
    FEATURE.NESTING,
  );
  table[MESSAGE.HOST_PASID_REFUSED] = entry(
    body(CODEC.HostPasidRefused, (_, m) => assigned.refusedPasid(m)),
    FEATURE.NESTING,
  );
}
