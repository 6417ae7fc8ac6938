/** What the front channel may ask, by message number, and who handles it. */
import type { Iommu } from '../device/iommu.js';
import { CODEC, type Codec } from '../wire/codec.js';
import { FEATURE, type Frame, MESSAGE } from '../wire/frame.js';
import type * as M from '../wire/messages.js';
import { type Agreement, acceptHello } from './handshake.js';
import { addRegion, removeRegion } from './memory-table.js';
import type { Session } from './session.js';

const DONE: M.Status = { code: 0, text: '' };

type Handler = (session: Session, frame: Frame, bytes: Uint8Array) => void;

interface Entry {
  readonly handle: Handler;
  /** Features of which one must be in force; 0 = none needed. */
  readonly feature: number;
  /** Whether the handler looks after descriptors itself; otherwise none may come. */
  readonly descriptors: boolean;
  /** Whether it may change what a completion waits for, or what the peer may do by itself. */
  readonly changes: boolean;
}

function body<T extends object>(
  codec: Codec<T>,
  handle: (session: Session, frame: Frame, message: T) => void,
): Handler {
  return (session, frame, bytes) => handle(session, frame, codec.decode(bytes, frame.start, frame.end));
}

const entry = (handle: Handler, feature = 0, descriptors = false): Entry => ({
  ...{ handle, feature, descriptors, changes: true },
});

/** A handler that changes nothing, or marks the completions itself where it does. */
const look = (handle: Handler, feature = 0): Entry => ({
  ...{ handle, feature, descriptors: false, changes: false },
});

/** By message number. */
export const FRONT: readonly (Entry | undefined)[] = (() => {
  const table: (Entry | undefined)[] = [];
  table[MESSAGE.HELLO] = entry(body(CODEC.Hello, acceptHello), 0, true);
  table[MESSAGE.MEM_ADD] = entry(
    body(CODEC.MemAdd, addRegion),
    FEATURE.SHARED_MEMORY | FEATURE.REMOTE_MEMORY,
    true,
  );
  table[MESSAGE.MEM_REMOVE] = entry(
    body(CODEC.MemRemove, removeRegion),
    FEATURE.SHARED_MEMORY | FEATURE.REMOTE_MEMORY,
  );
  table[MESSAGE.REG_WRITE] = entry(body(CODEC.RegWrite, (session, frame, m) => session.regWrite(frame, m)));
  table[MESSAGE.REG_READ] = look(body(CODEC.RegRead, (session, frame, m) => session.regRead(frame, m)));
  table[MESSAGE.TRANSLATE] = look(body(CODEC.Translate, (session, frame, m) => session.translate(frame, m)));
  table[MESSAGE.DEVICE_ADDED] = entry(
    body(CODEC.DeviceAdded, (session, _, m) => {
      const { rid } = session.devices.find(m.device) ?? m;
      session.devices.add(m.device, m.rid, m.name);
      if (rid !== m.rid) session.invalidations.renumbered(m.device, rid);
      session.walks.tellAgain();
      session.assigned.renumber(m.device, m.rid);
      session.shadowing.notified(m.device, session.model as Iommu);
      session.ports.event({ kind: 'deviceAdded', device: m.device, rid: m.rid, name: m.name });
    }),
  );
  table[MESSAGE.DEVICE_REMOVED] = entry(
    body(CODEC.DeviceRemoved, (session, _, m) => {
      session.devices.remove(m.device);
      session.assigned.remove(m.device);
      session.shadowing.notified(m.device, session.model as Iommu);
      session.ports.event({ kind: 'deviceRemoved', device: m.device });
    }),
  );
  table[MESSAGE.RESET] = entry(
    body(CODEC.Reset, (session, frame) => {
      session.reset();
      session.replyWhenHostIsDone(frame, CODEC.Status, DONE);
    }),
  );
  table[MESSAGE.REPLAY] = look(
    body(CODEC.Replay, (session, frame, m) => session.replay(frame, m)),
    FEATURE.NOTIFIERS,
  );
  table[MESSAGE.NOTIFIER] = entry(
    body(CODEC.Notifier, (session, _, m) => {
      session.devices.notify(m.device, m.flags);
      session.shadowing.notified(m.device, session.model as Iommu);
    }),
    FEATURE.NOTIFIERS,
  );
  table[MESSAGE.PAGE_REQUEST] = entry(
    body(CODEC.PageRequest, (session, _, m) => session.pageRequest(m)),
    FEATURE.PRI,
  );
  // Whoever it woke up looks into the mailbox.
  table[MESSAGE.MAIL] = look(
    body(CODEC.Mail, () => {}),
    FEATURE.MAILBOX,
  );
  // The input that it caused has emptied the ring already.
  table[MESSAGE.QUEUE_RAN] = look(
    body(CODEC.QueueRan, () => {}),
    FEATURE.QUEUES,
  );
  table[MESSAGE.HOST_LISTEN] = entry(
    body(CODEC.HostListen, (session, _, m) => session.shadowing.listen(m)),
    FEATURE.HOST_BATCH,
  );
  table[MESSAGE.HOST_SETTLE] = entry(
    body(CODEC.HostSettle, (session, frame) => session.settle(frame)),
    FEATURE.HOST_BATCH,
  );
  table[MESSAGE.TABLE_WRITE] = entry(
    body(CODEC.TableWrite, (session, frame, m) => {
      session.shadowing.stored(m);
      session.settle(frame);
    }),
    FEATURE.TRACKING,
  );
  table[MESSAGE.HOST_DEVICE] = entry(
    body(CODEC.HostDevice, (session, frame, m) => {
      const { modelName, options } = session.agreement as Agreement;
      const reply = session.assigned.announce(m, modelName, options);
      session.shadowing.notified(m.device, session.model as Iommu);
      session.reply(frame, CODEC.HostDeviceReply, reply);
    }),
    FEATURE.NESTING,
  );
  table[MESSAGE.HOST_EVENT] = entry(
    body(CODEC.HostEvent, (session, _, m) => session.assigned.hostEvent(m)),
    FEATURE.NESTING,
  );
  table[MESSAGE.HOST_PAGE_REQUEST] = entry(
    body(CODEC.HostPageRequest, (session, _, m) => session.assigned.pageRequest(m)),
    FEATURE.NESTING,
  );
  table[MESSAGE.HOST_PASID_REFUSED] = entry(
    body(CODEC.HostPasidRefused, (session, _, m) => session.assigned.refusedPasid(m)),
    FEATURE.NESTING,
  );
  return table;
})();
