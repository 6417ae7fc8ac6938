// Made from proto/viommu.proto by `npm run contract`, and checked against it by a test. Not to be edited.
import { Codec, EMPTY, NO_BYTES } from '../body.js';
import type * as M from './messages.js';
import { MESSAGE } from './numbers.js';

/** Every message. */
export const CODEC = {
  Hello: new Codec<M.Hello>(
    'Hello',
    (m) => {
      m.version = 0;
      m.features = 0;
      m.vm = '';
      m.model = '';
      m.peer = '';
      m.sharedBytes = 0;
      m.options = {};
    },
    (m, w) => {
      if (m.version) w.uint32(8).uint32(m.version);
      if (m.features) w.uint32(21).fixed32(m.features);
      if (m.vm) w.uint32(26).string(m.vm);
      if (m.model) w.uint32(34).string(m.model);
      if (m.peer) w.uint32(42).string(m.peer);
      if (m.sharedBytes) w.uint32(48).uint32(m.sharedBytes);
      for (const key of Object.keys(m.options ?? {})) {
        w.uint32(58).entry(key, m.options[key] as string);
      }
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 8:
            m.version = r.uint32();
            break;
          case 21:
            m.features = r.fixed32();
            break;
          case 26:
            m.vm = r.string();
            break;
          case 34:
            m.model = r.string();
            break;
          case 42:
            m.peer = r.string();
            break;
          case 48:
            m.sharedBytes = r.uint32();
            break;
          case 58:
            r.entry(m.options);
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
  HelloReply: new Codec<M.HelloReply>(
    'HelloReply',
    (m) => {
      m.version = 0;
      m.features = 0;
      m.session = '';
      m.registerBytes = 0;
    },
    (m, w) => {
      if (m.version) w.uint32(8).uint32(m.version);
      if (m.features) w.uint32(21).fixed32(m.features);
      if (m.session) w.uint32(26).string(m.session);
      if (m.registerBytes) w.uint32(32).uint32(m.registerBytes);
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 8:
            m.version = r.uint32();
            break;
          case 21:
            m.features = r.fixed32();
            break;
          case 26:
            m.session = r.string();
            break;
          case 32:
            m.registerBytes = r.uint32();
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
  MemAdd: new Codec<M.MemAdd>(
    'MemAdd',
    (m) => {
      m.region = 0;
      m.gpaLo = 0;
      m.gpaHi = 0;
      m.sizeLo = 0;
      m.sizeHi = 0;
      m.offsetLo = 0;
      m.offsetHi = 0;
      m.readonly = false;
      m.shared = false;
    },
    (m, w) => {
      if (m.region) w.uint32(8).uint32(m.region);
      if (m.gpaLo) w.uint32(21).fixed32(m.gpaLo);
      if (m.gpaHi) w.uint32(29).fixed32(m.gpaHi);
      if (m.sizeLo) w.uint32(37).fixed32(m.sizeLo);
      if (m.sizeHi) w.uint32(45).fixed32(m.sizeHi);
      if (m.offsetLo) w.uint32(53).fixed32(m.offsetLo);
      if (m.offsetHi) w.uint32(61).fixed32(m.offsetHi);
      if (m.readonly) w.uint32(64).bool(m.readonly);
      if (m.shared) w.uint32(72).bool(m.shared);
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 8:
            m.region = r.uint32();
            break;
          case 21:
            m.gpaLo = r.fixed32();
            break;
          case 29:
            m.gpaHi = r.fixed32();
            break;
          case 37:
            m.sizeLo = r.fixed32();
            break;
          case 45:
            m.sizeHi = r.fixed32();
            break;
          case 53:
            m.offsetLo = r.fixed32();
            break;
          case 61:
            m.offsetHi = r.fixed32();
            break;
          case 64:
            m.readonly = r.bool();
            break;
          case 72:
            m.shared = r.bool();
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
  MemRemove: new Codec<M.MemRemove>(
    'MemRemove',
    (m) => {
      m.region = 0;
    },
    (m, w) => {
      if (m.region) w.uint32(8).uint32(m.region);
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 8:
            m.region = r.uint32();
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
  Status: new Codec<M.Status>(
    'Status',
    (m) => {
      m.code = 0;
      m.text = '';
    },
    (m, w) => {
      if (m.code) w.uint32(8).uint32(m.code);
      if (m.text) w.uint32(18).string(m.text);
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 8:
            m.code = r.uint32();
            break;
          case 18:
            m.text = r.string();
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
  Mail: new Codec<M.Mail>(
    'Mail',
    () => {},
    () => {},
    (_, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) r.skip(tag);
    },
  ),
  RegWrite: new Codec<M.RegWrite>(
    'RegWrite',
    (m) => {
      m.offset = 0;
      m.size = 0;
      m.lo = 0;
      m.hi = 0;
    },
    (m, w) => {
      if (m.offset) w.uint32(13).fixed32(m.offset);
      if (m.size) w.uint32(16).uint32(m.size);
      if (m.lo) w.uint32(29).fixed32(m.lo);
      if (m.hi) w.uint32(37).fixed32(m.hi);
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 13:
            m.offset = r.fixed32();
            break;
          case 16:
            m.size = r.uint32();
            break;
          case 29:
            m.lo = r.fixed32();
            break;
          case 37:
            m.hi = r.fixed32();
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
  RegWriteReply: new Codec<M.RegWriteReply>(
    'RegWriteReply',
    (m) => {
      m.batch = 0;
      m.device = 0;
      m.ops = EMPTY;
    },
    (m, w) => {
      if (m.batch) w.uint32(13).fixed32(m.batch);
      if (m.device) w.uint32(16).uint32(m.device);
      if (m.ops?.length) w.uint32(26).fixed32s(m.ops);
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 13:
            m.batch = r.fixed32();
            break;
          case 16:
            m.device = r.uint32();
            break;
          case 26:
            m.ops = r.fixed32s(m.ops);
            break;
          case 29:
            m.ops = r.single(m.ops, r.fixed32());
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
  RegRead: new Codec<M.RegRead>(
    'RegRead',
    (m) => {
      m.offset = 0;
      m.size = 0;
    },
    (m, w) => {
      if (m.offset) w.uint32(13).fixed32(m.offset);
      if (m.size) w.uint32(16).uint32(m.size);
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 13:
            m.offset = r.fixed32();
            break;
          case 16:
            m.size = r.uint32();
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
  RegReadReply: new Codec<M.RegReadReply>(
    'RegReadReply',
    (m) => {
      m.lo = 0;
      m.hi = 0;
      m.unsettled = false;
    },
    (m, w) => {
      if (m.lo) w.uint32(13).fixed32(m.lo);
      if (m.hi) w.uint32(21).fixed32(m.hi);
      if (m.unsettled) w.uint32(24).bool(m.unsettled);
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 13:
            m.lo = r.fixed32();
            break;
          case 21:
            m.hi = r.fixed32();
            break;
          case 24:
            m.unsettled = r.bool();
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
  Translate: new Codec<M.Translate>(
    'Translate',
    (m) => {
      m.rid = 0;
      m.pasid = 0;
      m.access = 0;
      m.lo = 0;
      m.hi = 0;
      m.kind = 0;
      m.mayStall = false;
      m.size = 0;
    },
    (m, w) => {
      if (m.rid) w.uint32(8).uint32(m.rid);
      if (m.pasid) w.uint32(16).uint32(m.pasid);
      if (m.access) w.uint32(24).uint32(m.access);
      if (m.lo) w.uint32(37).fixed32(m.lo);
      if (m.hi) w.uint32(45).fixed32(m.hi);
      if (m.kind) w.uint32(48).uint32(m.kind);
      if (m.mayStall) w.uint32(56).bool(m.mayStall);
      if (m.size) w.uint32(64).uint32(m.size);
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 8:
            m.rid = r.uint32();
            break;
          case 16:
            m.pasid = r.uint32();
            break;
          case 24:
            m.access = r.uint32();
            break;
          case 37:
            m.lo = r.fixed32();
            break;
          case 45:
            m.hi = r.fixed32();
            break;
          case 48:
            m.kind = r.uint32();
            break;
          case 56:
            m.mayStall = r.bool();
            break;
          case 64:
            m.size = r.uint32();
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
  TranslateReply: new Codec<M.TranslateReply>(
    'TranslateReply',
    (m) => {
      m.status = 0;
      m.epoch = 0;
      m.space = 0;
      m.sub = 0;
      m.spans = EMPTY;
      m.once = false;
      m.stall = 0;
    },
    (m, w) => {
      if (m.status) w.uint32(8).uint32(m.status);
      if (m.epoch) w.uint32(21).fixed32(m.epoch);
      if (m.space) w.uint32(29).fixed32(m.space);
      if (m.sub) w.uint32(37).fixed32(m.sub);
      if (m.spans?.length) w.uint32(42).fixed32s(m.spans);
      if (m.once) w.uint32(48).bool(m.once);
      if (m.stall) w.uint32(61).fixed32(m.stall);
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 8:
            m.status = r.uint32();
            break;
          case 21:
            m.epoch = r.fixed32();
            break;
          case 29:
            m.space = r.fixed32();
            break;
          case 37:
            m.sub = r.fixed32();
            break;
          case 42:
            m.spans = r.fixed32s(m.spans);
            break;
          case 45:
            m.spans = r.single(m.spans, r.fixed32());
            break;
          case 48:
            m.once = r.bool();
            break;
          case 61:
            m.stall = r.fixed32();
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
  DeviceAdded: new Codec<M.DeviceAdded>(
    'DeviceAdded',
    (m) => {
      m.device = 0;
      m.rid = 0;
      m.name = '';
    },
    (m, w) => {
      if (m.device) w.uint32(8).uint32(m.device);
      if (m.rid) w.uint32(16).uint32(m.rid);
      if (m.name) w.uint32(26).string(m.name);
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 8:
            m.device = r.uint32();
            break;
          case 16:
            m.rid = r.uint32();
            break;
          case 26:
            m.name = r.string();
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
  DeviceRemoved: new Codec<M.DeviceRemoved>(
    'DeviceRemoved',
    (m) => {
      m.device = 0;
    },
    (m, w) => {
      if (m.device) w.uint32(8).uint32(m.device);
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 8:
            m.device = r.uint32();
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
  Notifier: new Codec<M.Notifier>(
    'Notifier',
    (m) => {
      m.device = 0;
      m.flags = 0;
    },
    (m, w) => {
      if (m.device) w.uint32(8).uint32(m.device);
      if (m.flags) w.uint32(16).uint32(m.flags);
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 8:
            m.device = r.uint32();
            break;
          case 16:
            m.flags = r.uint32();
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
  Reset: new Codec<M.Reset>(
    'Reset',
    () => {},
    () => {},
    (_, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) r.skip(tag);
    },
  ),
  PageRequest: new Codec<M.PageRequest>(
    'PageRequest',
    (m) => {
      m.rid = 0;
      m.pasid = 0;
      m.access = 0;
      m.lo = 0;
      m.hi = 0;
      m.group = 0;
      m.last = false;
    },
    (m, w) => {
      if (m.rid) w.uint32(8).uint32(m.rid);
      if (m.pasid) w.uint32(16).uint32(m.pasid);
      if (m.access) w.uint32(24).uint32(m.access);
      if (m.lo) w.uint32(37).fixed32(m.lo);
      if (m.hi) w.uint32(45).fixed32(m.hi);
      if (m.group) w.uint32(48).uint32(m.group);
      if (m.last) w.uint32(56).bool(m.last);
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 8:
            m.rid = r.uint32();
            break;
          case 16:
            m.pasid = r.uint32();
            break;
          case 24:
            m.access = r.uint32();
            break;
          case 37:
            m.lo = r.fixed32();
            break;
          case 45:
            m.hi = r.fixed32();
            break;
          case 48:
            m.group = r.uint32();
            break;
          case 56:
            m.last = r.bool();
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
  Replay: new Codec<M.Replay>(
    'Replay',
    (m) => {
      m.rid = 0;
      m.pasid = 0;
      m.lo = 0;
      m.hi = 0;
    },
    (m, w) => {
      if (m.rid) w.uint32(8).uint32(m.rid);
      if (m.pasid) w.uint32(16).uint32(m.pasid);
      if (m.lo) w.uint32(29).fixed32(m.lo);
      if (m.hi) w.uint32(37).fixed32(m.hi);
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 8:
            m.rid = r.uint32();
            break;
          case 16:
            m.pasid = r.uint32();
            break;
          case 29:
            m.lo = r.fixed32();
            break;
          case 37:
            m.hi = r.fixed32();
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
  ReplayReply: new Codec<M.ReplayReply>(
    'ReplayReply',
    (m) => {
      m.spans = EMPTY;
      m.more = false;
      m.epoch = 0;
    },
    (m, w) => {
      if (m.spans?.length) w.uint32(10).fixed32s(m.spans);
      if (m.more) w.uint32(16).bool(m.more);
      if (m.epoch) w.uint32(29).fixed32(m.epoch);
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 10:
            m.spans = r.fixed32s(m.spans);
            break;
          case 13:
            m.spans = r.single(m.spans, r.fixed32());
            break;
          case 16:
            m.more = r.bool();
            break;
          case 29:
            m.epoch = r.fixed32();
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
  HostListen: new Codec<M.HostListen>(
    'HostListen',
    (m) => {
      m.device = 0;
      m.firstLo = 0;
      m.firstHi = 0;
      m.lastLo = 0;
      m.lastHi = 0;
    },
    (m, w) => {
      if (m.device) w.uint32(8).uint32(m.device);
      if (m.firstLo) w.uint32(21).fixed32(m.firstLo);
      if (m.firstHi) w.uint32(29).fixed32(m.firstHi);
      if (m.lastLo) w.uint32(37).fixed32(m.lastLo);
      if (m.lastHi) w.uint32(45).fixed32(m.lastHi);
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 8:
            m.device = r.uint32();
            break;
          case 21:
            m.firstLo = r.fixed32();
            break;
          case 29:
            m.firstHi = r.fixed32();
            break;
          case 37:
            m.lastLo = r.fixed32();
            break;
          case 45:
            m.lastHi = r.fixed32();
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
  HostSettle: new Codec<M.HostSettle>(
    'HostSettle',
    () => {},
    () => {},
    (_, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) r.skip(tag);
    },
  ),
  HostSettleReply: new Codec<M.HostSettleReply>(
    'HostSettleReply',
    (m) => {
      m.settled = false;
      m.sent = 0;
      m.tracking = false;
    },
    (m, w) => {
      if (m.settled) w.uint32(8).bool(m.settled);
      if (m.sent) w.uint32(21).fixed32(m.sent);
      if (m.tracking) w.uint32(24).bool(m.tracking);
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 8:
            m.settled = r.bool();
            break;
          case 21:
            m.sent = r.fixed32();
            break;
          case 24:
            m.tracking = r.bool();
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
  Invalidate: new Codec<M.Invalidate>(
    'Invalidate',
    (m) => {
      m.epoch = 0;
      m.space = 0;
      m.sub = 0;
      m.rid = 0;
      m.pasid = 0;
      m.lo = 0;
      m.hi = 0;
      m.log2Size = 0;
      m.devices = EMPTY;
      m.structures = false;
    },
    (m, w) => {
      if (m.epoch) w.uint32(13).fixed32(m.epoch);
      if (m.space) w.uint32(21).fixed32(m.space);
      if (m.sub) w.uint32(29).fixed32(m.sub);
      if (m.rid) w.uint32(37).fixed32(m.rid);
      if (m.pasid) w.uint32(45).fixed32(m.pasid);
      if (m.lo) w.uint32(53).fixed32(m.lo);
      if (m.hi) w.uint32(61).fixed32(m.hi);
      if (m.log2Size) w.uint32(64).uint32(m.log2Size);
      if (m.devices?.length) w.uint32(74).uint32s(m.devices);
      if (m.structures) w.uint32(80).bool(m.structures);
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 13:
            m.epoch = r.fixed32();
            break;
          case 21:
            m.space = r.fixed32();
            break;
          case 29:
            m.sub = r.fixed32();
            break;
          case 37:
            m.rid = r.fixed32();
            break;
          case 45:
            m.pasid = r.fixed32();
            break;
          case 53:
            m.lo = r.fixed32();
            break;
          case 61:
            m.hi = r.fixed32();
            break;
          case 64:
            m.log2Size = r.uint32();
            break;
          case 74:
            m.devices = r.uint32s(m.devices);
            break;
          case 72:
            m.devices = r.single(m.devices, r.uint32());
            break;
          case 80:
            m.structures = r.bool();
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
  PeerWalk: new Codec<M.PeerWalk>(
    'PeerWalk',
    (m) => {
      m.rid = 0;
      m.pasid = 0;
      m.space = 0;
      m.sub = 0;
      m.rootLo = 0;
      m.rootHi = 0;
      m.signExtended = false;
      m.upper = false;
      m.inputLo = 0;
      m.inputHi = 0;
      m.present = 0;
      m.keep = 0;
      m.tableAccessed = 0;
      m.accessed = 0;
      m.dirty = 0;
      m.clean = 0;
      m.addressLo = 0;
      m.addressHi = 0;
      m.split = 0;
      m.splitShift = 0;
      m.lowShift = 0;
      m.lowMask = 0;
      m.leafHiShift = 0;
      m.leafHiMask = 0;
      m.aboveHiShift = 0;
      m.aboveHiMask = 0;
      m.rights = NO_BYTES;
      m.levels = EMPTY;
      m.expectedMask = 0;
      m.expected = 0;
      m.holeFirst = 0;
      m.holeLast = 0;
      m.holeInput = false;
    },
    (m, w) => {
      if (m.rid) w.uint32(8).uint32(m.rid);
      if (m.pasid) w.uint32(16).uint32(m.pasid);
      if (m.space) w.uint32(29).fixed32(m.space);
      if (m.sub) w.uint32(37).fixed32(m.sub);
      if (m.rootLo) w.uint32(45).fixed32(m.rootLo);
      if (m.rootHi) w.uint32(53).fixed32(m.rootHi);
      if (m.signExtended) w.uint32(56).bool(m.signExtended);
      if (m.upper) w.uint32(64).bool(m.upper);
      if (m.inputLo) w.uint32(77).fixed32(m.inputLo);
      if (m.inputHi) w.uint32(85).fixed32(m.inputHi);
      if (m.present) w.uint32(93).fixed32(m.present);
      if (m.keep) w.uint32(101).fixed32(m.keep);
      if (m.tableAccessed) w.uint32(109).fixed32(m.tableAccessed);
      if (m.accessed) w.uint32(117).fixed32(m.accessed);
      if (m.dirty) w.uint32(125).fixed32(m.dirty);
      if (m.clean) w.uint32(133).fixed32(m.clean);
      if (m.addressLo) w.uint32(141).fixed32(m.addressLo);
      if (m.addressHi) w.uint32(149).fixed32(m.addressHi);
      if (m.split) w.uint32(157).fixed32(m.split);
      if (m.splitShift) w.uint32(160).uint32(m.splitShift);
      if (m.lowShift) w.uint32(168).uint32(m.lowShift);
      if (m.lowMask) w.uint32(176).uint32(m.lowMask);
      if (m.leafHiShift) w.uint32(184).uint32(m.leafHiShift);
      if (m.leafHiMask) w.uint32(192).uint32(m.leafHiMask);
      if (m.aboveHiShift) w.uint32(200).uint32(m.aboveHiShift);
      if (m.aboveHiMask) w.uint32(208).uint32(m.aboveHiMask);
      if (m.rights?.length) w.uint32(218).bytes(m.rights);
      if (m.levels?.length) w.uint32(226).fixed32s(m.levels);
      if (m.expectedMask) w.uint32(237).fixed32(m.expectedMask);
      if (m.expected) w.uint32(245).fixed32(m.expected);
      if (m.holeFirst) w.uint32(248).uint32(m.holeFirst);
      if (m.holeLast) w.uint32(256).uint32(m.holeLast);
      if (m.holeInput) w.uint32(264).bool(m.holeInput);
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 8:
            m.rid = r.uint32();
            break;
          case 16:
            m.pasid = r.uint32();
            break;
          case 29:
            m.space = r.fixed32();
            break;
          case 37:
            m.sub = r.fixed32();
            break;
          case 45:
            m.rootLo = r.fixed32();
            break;
          case 53:
            m.rootHi = r.fixed32();
            break;
          case 56:
            m.signExtended = r.bool();
            break;
          case 64:
            m.upper = r.bool();
            break;
          case 77:
            m.inputLo = r.fixed32();
            break;
          case 85:
            m.inputHi = r.fixed32();
            break;
          case 93:
            m.present = r.fixed32();
            break;
          case 101:
            m.keep = r.fixed32();
            break;
          case 109:
            m.tableAccessed = r.fixed32();
            break;
          case 117:
            m.accessed = r.fixed32();
            break;
          case 125:
            m.dirty = r.fixed32();
            break;
          case 133:
            m.clean = r.fixed32();
            break;
          case 141:
            m.addressLo = r.fixed32();
            break;
          case 149:
            m.addressHi = r.fixed32();
            break;
          case 157:
            m.split = r.fixed32();
            break;
          case 160:
            m.splitShift = r.uint32();
            break;
          case 168:
            m.lowShift = r.uint32();
            break;
          case 176:
            m.lowMask = r.uint32();
            break;
          case 184:
            m.leafHiShift = r.uint32();
            break;
          case 192:
            m.leafHiMask = r.uint32();
            break;
          case 200:
            m.aboveHiShift = r.uint32();
            break;
          case 208:
            m.aboveHiMask = r.uint32();
            break;
          case 218:
            m.rights = r.bytes();
            break;
          case 226:
            m.levels = r.fixed32s(m.levels);
            break;
          case 229:
            m.levels = r.single(m.levels, r.fixed32());
            break;
          case 237:
            m.expectedMask = r.fixed32();
            break;
          case 245:
            m.expected = r.fixed32();
            break;
          case 248:
            m.holeFirst = r.uint32();
            break;
          case 256:
            m.holeLast = r.uint32();
            break;
          case 264:
            m.holeInput = r.bool();
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
  Queue: new Codec<M.Queue>(
    'Queue',
    (m) => {
      m.number = 0;
      m.tail = 0;
      m.head = 0;
      m.indexMask = 0;
      m.indexShift = 0;
      m.wraps = false;
      m.baseLo = 0;
      m.baseHi = 0;
      m.entryLog2 = 0;
      m.entriesLog2 = 0;
      m.commands = EMPTY;
    },
    (m, w) => {
      if (m.number) w.uint32(13).fixed32(m.number);
      if (m.tail) w.uint32(16).uint32(m.tail);
      if (m.head) w.uint32(24).uint32(m.head);
      if (m.indexMask) w.uint32(37).fixed32(m.indexMask);
      if (m.indexShift) w.uint32(40).uint32(m.indexShift);
      if (m.wraps) w.uint32(48).bool(m.wraps);
      if (m.baseLo) w.uint32(61).fixed32(m.baseLo);
      if (m.baseHi) w.uint32(69).fixed32(m.baseHi);
      if (m.entryLog2) w.uint32(72).uint32(m.entryLog2);
      if (m.entriesLog2) w.uint32(80).uint32(m.entriesLog2);
      if (m.commands?.length) w.uint32(90).fixed32s(m.commands);
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 13:
            m.number = r.fixed32();
            break;
          case 16:
            m.tail = r.uint32();
            break;
          case 24:
            m.head = r.uint32();
            break;
          case 37:
            m.indexMask = r.fixed32();
            break;
          case 40:
            m.indexShift = r.uint32();
            break;
          case 48:
            m.wraps = r.bool();
            break;
          case 61:
            m.baseLo = r.fixed32();
            break;
          case 69:
            m.baseHi = r.fixed32();
            break;
          case 72:
            m.entryLog2 = r.uint32();
            break;
          case 80:
            m.entriesLog2 = r.uint32();
            break;
          case 90:
            m.commands = r.fixed32s(m.commands);
            break;
          case 93:
            m.commands = r.single(m.commands, r.fixed32());
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
  QueueRan: new Codec<M.QueueRan>(
    'QueueRan',
    () => {},
    () => {},
    (_, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) r.skip(tag);
    },
  ),
  Interrupt: new Codec<M.Interrupt>(
    'Interrupt',
    (m) => {
      m.addressLo = 0;
      m.addressHi = 0;
      m.data = 0;
      m.wire = 0;
    },
    (m, w) => {
      if (m.addressLo) w.uint32(13).fixed32(m.addressLo);
      if (m.addressHi) w.uint32(21).fixed32(m.addressHi);
      if (m.data) w.uint32(29).fixed32(m.data);
      if (m.wire) w.uint32(32).uint32(m.wire);
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 13:
            m.addressLo = r.fixed32();
            break;
          case 21:
            m.addressHi = r.fixed32();
            break;
          case 29:
            m.data = r.fixed32();
            break;
          case 32:
            m.wire = r.uint32();
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
  RemapInterrupt: new Codec<M.RemapInterrupt>(
    'RemapInterrupt',
    (m) => {
      m.rid = 0;
      m.addressLo = 0;
      m.addressHi = 0;
      m.data = 0;
      m.look = false;
    },
    (m, w) => {
      if (m.rid) w.uint32(8).uint32(m.rid);
      if (m.addressLo) w.uint32(21).fixed32(m.addressLo);
      if (m.addressHi) w.uint32(29).fixed32(m.addressHi);
      if (m.data) w.uint32(37).fixed32(m.data);
      if (m.look) w.uint32(40).bool(m.look);
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 8:
            m.rid = r.uint32();
            break;
          case 21:
            m.addressLo = r.fixed32();
            break;
          case 29:
            m.addressHi = r.fixed32();
            break;
          case 37:
            m.data = r.fixed32();
            break;
          case 40:
            m.look = r.bool();
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
  RemapInterruptReply: new Codec<M.RemapInterruptReply>(
    'RemapInterruptReply',
    (m) => {
      m.status = 0;
      m.epoch = 0;
      m.addressLo = 0;
      m.addressHi = 0;
      m.data = 0;
      m.index = 0;
      m.once = false;
      m.passAll = false;
    },
    (m, w) => {
      if (m.status) w.uint32(8).uint32(m.status);
      if (m.epoch) w.uint32(21).fixed32(m.epoch);
      if (m.addressLo) w.uint32(29).fixed32(m.addressLo);
      if (m.addressHi) w.uint32(37).fixed32(m.addressHi);
      if (m.data) w.uint32(45).fixed32(m.data);
      if (m.index) w.uint32(48).uint32(m.index);
      if (m.once) w.uint32(56).bool(m.once);
      if (m.passAll) w.uint32(64).bool(m.passAll);
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 8:
            m.status = r.uint32();
            break;
          case 21:
            m.epoch = r.fixed32();
            break;
          case 29:
            m.addressLo = r.fixed32();
            break;
          case 37:
            m.addressHi = r.fixed32();
            break;
          case 45:
            m.data = r.fixed32();
            break;
          case 48:
            m.index = r.uint32();
            break;
          case 56:
            m.once = r.bool();
            break;
          case 64:
            m.passAll = r.bool();
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
  InvalidateInterrupts: new Codec<M.InvalidateInterrupts>(
    'InvalidateInterrupts',
    (m) => {
      m.epoch = 0;
      m.index = 0;
      m.log2Count = 0;
    },
    (m, w) => {
      if (m.epoch) w.uint32(13).fixed32(m.epoch);
      if (m.index) w.uint32(16).uint32(m.index);
      if (m.log2Count) w.uint32(24).uint32(m.log2Count);
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 13:
            m.epoch = r.fixed32();
            break;
          case 16:
            m.index = r.uint32();
            break;
          case 24:
            m.log2Count = r.uint32();
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
  MemRead: new Codec<M.MemRead>(
    'MemRead',
    (m) => {
      m.gpaLo = 0;
      m.gpaHi = 0;
      m.size = 0;
    },
    (m, w) => {
      if (m.gpaLo) w.uint32(13).fixed32(m.gpaLo);
      if (m.gpaHi) w.uint32(21).fixed32(m.gpaHi);
      if (m.size) w.uint32(24).uint32(m.size);
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 13:
            m.gpaLo = r.fixed32();
            break;
          case 21:
            m.gpaHi = r.fixed32();
            break;
          case 24:
            m.size = r.uint32();
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
  MemReadReply: new Codec<M.MemReadReply>(
    'MemReadReply',
    (m) => {
      m.code = 0;
      m.data = NO_BYTES;
    },
    (m, w) => {
      if (m.code) w.uint32(8).uint32(m.code);
      if (m.data?.length) w.uint32(18).bytes(m.data);
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 8:
            m.code = r.uint32();
            break;
          case 18:
            m.data = r.bytes();
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
  MemWrite: new Codec<M.MemWrite>(
    'MemWrite',
    (m) => {
      m.gpaLo = 0;
      m.gpaHi = 0;
      m.data = NO_BYTES;
    },
    (m, w) => {
      if (m.gpaLo) w.uint32(13).fixed32(m.gpaLo);
      if (m.gpaHi) w.uint32(21).fixed32(m.gpaHi);
      if (m.data?.length) w.uint32(26).bytes(m.data);
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 13:
            m.gpaLo = r.fixed32();
            break;
          case 21:
            m.gpaHi = r.fixed32();
            break;
          case 26:
            m.data = r.bytes();
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
  MemCas: new Codec<M.MemCas>(
    'MemCas',
    (m) => {
      m.gpaLo = 0;
      m.gpaHi = 0;
      m.expected = 0;
      m.value = 0;
    },
    (m, w) => {
      if (m.gpaLo) w.uint32(13).fixed32(m.gpaLo);
      if (m.gpaHi) w.uint32(21).fixed32(m.gpaHi);
      if (m.expected) w.uint32(29).fixed32(m.expected);
      if (m.value) w.uint32(37).fixed32(m.value);
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 13:
            m.gpaLo = r.fixed32();
            break;
          case 21:
            m.gpaHi = r.fixed32();
            break;
          case 29:
            m.expected = r.fixed32();
            break;
          case 37:
            m.value = r.fixed32();
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
  MemCasReply: new Codec<M.MemCasReply>(
    'MemCasReply',
    (m) => {
      m.code = 0;
      m.found = 0;
    },
    (m, w) => {
      if (m.code) w.uint32(8).uint32(m.code);
      if (m.found) w.uint32(21).fixed32(m.found);
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 8:
            m.code = r.uint32();
            break;
          case 21:
            m.found = r.fixed32();
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
  HostBatch: new Codec<M.HostBatch>(
    'HostBatch',
    (m) => {
      m.device = 0;
      m.ops = EMPTY;
    },
    (m, w) => {
      if (m.device) w.uint32(8).uint32(m.device);
      if (m.ops?.length) w.uint32(18).fixed32s(m.ops);
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 8:
            m.device = r.uint32();
            break;
          case 18:
            m.ops = r.fixed32s(m.ops);
            break;
          case 21:
            m.ops = r.single(m.ops, r.fixed32());
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
  HostBatchReply: new Codec<M.HostBatchReply>(
    'HostBatchReply',
    (m) => {
      m.failures = EMPTY;
    },
    (m, w) => {
      if (m.failures?.length) w.uint32(10).fixed32s(m.failures);
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 10:
            m.failures = r.fixed32s(m.failures);
            break;
          case 13:
            m.failures = r.single(m.failures, r.fixed32());
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
  Track: new Codec<M.Track>(
    'Track',
    (m) => {
      m.pages = EMPTY;
    },
    (m, w) => {
      if (m.pages?.length) w.uint32(10).fixed32s(m.pages);
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 10:
            m.pages = r.fixed32s(m.pages);
            break;
          case 13:
            m.pages = r.single(m.pages, r.fixed32());
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
  TableWrite: new Codec<M.TableWrite>(
    'TableWrite',
    (m) => {
      m.lo = 0;
      m.hi = 0;
      m.size = 0;
    },
    (m, w) => {
      if (m.lo) w.uint32(13).fixed32(m.lo);
      if (m.hi) w.uint32(21).fixed32(m.hi);
      if (m.size) w.uint32(24).uint32(m.size);
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 13:
            m.lo = r.fixed32();
            break;
          case 21:
            m.hi = r.fixed32();
            break;
          case 24:
            m.size = r.uint32();
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
  TableWriteReply: new Codec<M.TableWriteReply>(
    'TableWriteReply',
    (m) => {
      m.settled = false;
      m.sent = 0;
      m.tracking = false;
    },
    (m, w) => {
      if (m.settled) w.uint32(8).bool(m.settled);
      if (m.sent) w.uint32(21).fixed32(m.sent);
      if (m.tracking) w.uint32(24).bool(m.tracking);
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 8:
            m.settled = r.bool();
            break;
          case 21:
            m.sent = r.fixed32();
            break;
          case 24:
            m.tracking = r.bool();
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
  HostDevice: new Codec<M.HostDevice>(
    'HostDevice',
    (m) => {
      m.device = 0;
      m.kind = 0;
      m.container = 0;
      m.abilities = 0;
      m.infoType = 0;
      m.info = NO_BYTES;
      m.pasidBits = 0;
      m.ranges = EMPTY;
      m.mappings = 0;
      m.batches = false;
    },
    (m, w) => {
      if (m.device) w.uint32(8).uint32(m.device);
      if (m.kind) w.uint32(16).uint32(m.kind);
      if (m.container) w.uint32(24).uint32(m.container);
      if (m.abilities) w.uint32(32).uint32(m.abilities);
      if (m.infoType) w.uint32(40).uint32(m.infoType);
      if (m.info?.length) w.uint32(50).bytes(m.info);
      if (m.pasidBits) w.uint32(56).uint32(m.pasidBits);
      if (m.ranges?.length) w.uint32(66).fixed32s(m.ranges);
      if (m.mappings) w.uint32(72).uint32(m.mappings);
      if (m.batches) w.uint32(80).bool(m.batches);
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 8:
            m.device = r.uint32();
            break;
          case 16:
            m.kind = r.uint32();
            break;
          case 24:
            m.container = r.uint32();
            break;
          case 32:
            m.abilities = r.uint32();
            break;
          case 40:
            m.infoType = r.uint32();
            break;
          case 50:
            m.info = r.bytes();
            break;
          case 56:
            m.pasidBits = r.uint32();
            break;
          case 66:
            m.ranges = r.fixed32s(m.ranges);
            break;
          case 69:
            m.ranges = r.single(m.ranges, r.fixed32());
            break;
          case 72:
            m.mappings = r.uint32();
            break;
          case 80:
            m.batches = r.bool();
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
  HostDeviceReply: new Codec<M.HostDeviceReply>(
    'HostDeviceReply',
    (m) => {
      m.code = 0;
      m.text = '';
      m.choice = 0;
    },
    (m, w) => {
      if (m.code) w.uint32(8).uint32(m.code);
      if (m.text) w.uint32(18).string(m.text);
      if (m.choice) w.uint32(24).uint32(m.choice);
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 8:
            m.code = r.uint32();
            break;
          case 18:
            m.text = r.string();
            break;
          case 24:
            m.choice = r.uint32();
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
  HostSpaceCreate: new Codec<M.HostSpaceCreate>(
    'HostSpaceCreate',
    (m) => {
      m.space = 0;
      m.device = 0;
      m.parent = false;
    },
    (m, w) => {
      if (m.space) w.uint32(8).uint32(m.space);
      if (m.device) w.uint32(16).uint32(m.device);
      if (m.parent) w.uint32(24).bool(m.parent);
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 8:
            m.space = r.uint32();
            break;
          case 16:
            m.device = r.uint32();
            break;
          case 24:
            m.parent = r.bool();
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
  HostSpaceDestroy: new Codec<M.HostSpaceDestroy>(
    'HostSpaceDestroy',
    (m) => {
      m.space = 0;
    },
    (m, w) => {
      if (m.space) w.uint32(8).uint32(m.space);
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 8:
            m.space = r.uint32();
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
  HostMap: new Codec<M.HostMap>(
    'HostMap',
    (m) => {
      m.space = 0;
      m.ops = EMPTY;
    },
    (m, w) => {
      if (m.space) w.uint32(8).uint32(m.space);
      if (m.ops?.length) w.uint32(18).fixed32s(m.ops);
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 8:
            m.space = r.uint32();
            break;
          case 18:
            m.ops = r.fixed32s(m.ops);
            break;
          case 21:
            m.ops = r.single(m.ops, r.fixed32());
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
  HostAttach: new Codec<M.HostAttach>(
    'HostAttach',
    (m) => {
      m.device = 0;
      m.pasid = 0;
      m.space = 0;
    },
    (m, w) => {
      if (m.device) w.uint32(8).uint32(m.device);
      if (m.pasid) w.uint32(16).uint32(m.pasid);
      if (m.space) w.uint32(24).uint32(m.space);
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 8:
            m.device = r.uint32();
            break;
          case 16:
            m.pasid = r.uint32();
            break;
          case 24:
            m.space = r.uint32();
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
  HostAttachTables: new Codec<M.HostAttachTables>(
    'HostAttachTables',
    (m) => {
      m.device = 0;
      m.pasid = 0;
      m.parent = 0;
      m.type = 0;
      m.data = NO_BYTES;
    },
    (m, w) => {
      if (m.device) w.uint32(8).uint32(m.device);
      if (m.pasid) w.uint32(16).uint32(m.pasid);
      if (m.parent) w.uint32(24).uint32(m.parent);
      if (m.type) w.uint32(32).uint32(m.type);
      if (m.data?.length) w.uint32(42).bytes(m.data);
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 8:
            m.device = r.uint32();
            break;
          case 16:
            m.pasid = r.uint32();
            break;
          case 24:
            m.parent = r.uint32();
            break;
          case 32:
            m.type = r.uint32();
            break;
          case 42:
            m.data = r.bytes();
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
  HostDetach: new Codec<M.HostDetach>(
    'HostDetach',
    (m) => {
      m.device = 0;
      m.pasid = 0;
    },
    (m, w) => {
      if (m.device) w.uint32(8).uint32(m.device);
      if (m.pasid) w.uint32(16).uint32(m.pasid);
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 8:
            m.device = r.uint32();
            break;
          case 16:
            m.pasid = r.uint32();
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
  HostIdentify: new Codec<M.HostIdentify>(
    'HostIdentify',
    (m) => {
      m.device = 0;
      m.idLo = 0;
      m.idHi = 0;
    },
    (m, w) => {
      if (m.device) w.uint32(8).uint32(m.device);
      if (m.idLo) w.uint32(21).fixed32(m.idLo);
      if (m.idHi) w.uint32(29).fixed32(m.idHi);
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 8:
            m.device = r.uint32();
            break;
          case 21:
            m.idLo = r.fixed32();
            break;
          case 29:
            m.idHi = r.fixed32();
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
  HostInvalidate: new Codec<M.HostInvalidate>(
    'HostInvalidate',
    (m) => {
      m.space = 0;
      m.type = 0;
      m.size = 0;
      m.targets = EMPTY;
      m.entries = NO_BYTES;
    },
    (m, w) => {
      if (m.space) w.uint32(8).uint32(m.space);
      if (m.type) w.uint32(16).uint32(m.type);
      if (m.size) w.uint32(24).uint32(m.size);
      if (m.targets?.length) w.uint32(34).fixed32s(m.targets);
      if (m.entries?.length) w.uint32(42).bytes(m.entries);
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 8:
            m.space = r.uint32();
            break;
          case 16:
            m.type = r.uint32();
            break;
          case 24:
            m.size = r.uint32();
            break;
          case 34:
            m.targets = r.fixed32s(m.targets);
            break;
          case 37:
            m.targets = r.single(m.targets, r.fixed32());
            break;
          case 42:
            m.entries = r.bytes();
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
  HostPasidAlloc: new Codec<M.HostPasidAlloc>(
    'HostPasidAlloc',
    (m) => {
      m.device = 0;
    },
    (m, w) => {
      if (m.device) w.uint32(8).uint32(m.device);
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 8:
            m.device = r.uint32();
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
  HostPasidFree: new Codec<M.HostPasidFree>(
    'HostPasidFree',
    (m) => {
      m.device = 0;
      m.pasid = 0;
    },
    (m, w) => {
      if (m.device) w.uint32(8).uint32(m.device);
      if (m.pasid) w.uint32(16).uint32(m.pasid);
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 8:
            m.device = r.uint32();
            break;
          case 16:
            m.pasid = r.uint32();
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
  HostReply: new Codec<M.HostReply>(
    'HostReply',
    (m) => {
      m.code = 0;
      m.text = '';
      m.done = 0;
      m.value = 0;
    },
    (m, w) => {
      if (m.code) w.uint32(8).uint32(m.code);
      if (m.text) w.uint32(18).string(m.text);
      if (m.done) w.uint32(24).uint32(m.done);
      if (m.value) w.uint32(32).uint32(m.value);
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 8:
            m.code = r.uint32();
            break;
          case 18:
            m.text = r.string();
            break;
          case 24:
            m.done = r.uint32();
            break;
          case 32:
            m.value = r.uint32();
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
  HostRespond: new Codec<M.HostRespond>(
    'HostRespond',
    (m) => {
      m.device = 0;
      m.pasid = 0;
      m.group = 0;
      m.code = 0;
    },
    (m, w) => {
      if (m.device) w.uint32(8).uint32(m.device);
      if (m.pasid) w.uint32(16).uint32(m.pasid);
      if (m.group) w.uint32(24).uint32(m.group);
      if (m.code) w.uint32(32).uint32(m.code);
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 8:
            m.device = r.uint32();
            break;
          case 16:
            m.pasid = r.uint32();
            break;
          case 24:
            m.group = r.uint32();
            break;
          case 32:
            m.code = r.uint32();
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
  HostEvent: new Codec<M.HostEvent>(
    'HostEvent',
    (m) => {
      m.space = 0;
      m.device = 0;
      m.pasid = 0;
      m.type = 0;
      m.record = NO_BYTES;
      m.lost = false;
    },
    (m, w) => {
      if (m.space) w.uint32(8).uint32(m.space);
      if (m.device) w.uint32(16).uint32(m.device);
      if (m.pasid) w.uint32(24).uint32(m.pasid);
      if (m.type) w.uint32(32).uint32(m.type);
      if (m.record?.length) w.uint32(42).bytes(m.record);
      if (m.lost) w.uint32(48).bool(m.lost);
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 8:
            m.space = r.uint32();
            break;
          case 16:
            m.device = r.uint32();
            break;
          case 24:
            m.pasid = r.uint32();
            break;
          case 32:
            m.type = r.uint32();
            break;
          case 42:
            m.record = r.bytes();
            break;
          case 48:
            m.lost = r.bool();
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
  HostPageRequest: new Codec<M.HostPageRequest>(
    'HostPageRequest',
    (m) => {
      m.device = 0;
      m.pasid = 0;
      m.access = 0;
      m.lo = 0;
      m.hi = 0;
      m.group = 0;
      m.last = false;
    },
    (m, w) => {
      if (m.device) w.uint32(8).uint32(m.device);
      if (m.pasid) w.uint32(16).uint32(m.pasid);
      if (m.access) w.uint32(24).uint32(m.access);
      if (m.lo) w.uint32(37).fixed32(m.lo);
      if (m.hi) w.uint32(45).fixed32(m.hi);
      if (m.group) w.uint32(48).uint32(m.group);
      if (m.last) w.uint32(56).bool(m.last);
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 8:
            m.device = r.uint32();
            break;
          case 16:
            m.pasid = r.uint32();
            break;
          case 24:
            m.access = r.uint32();
            break;
          case 37:
            m.lo = r.fixed32();
            break;
          case 45:
            m.hi = r.fixed32();
            break;
          case 48:
            m.group = r.uint32();
            break;
          case 56:
            m.last = r.bool();
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
  HostPasidRefused: new Codec<M.HostPasidRefused>(
    'HostPasidRefused',
    (m) => {
      m.device = 0;
      m.pasid = 0;
      m.access = 0;
      m.lo = 0;
      m.hi = 0;
    },
    (m, w) => {
      if (m.device) w.uint32(8).uint32(m.device);
      if (m.pasid) w.uint32(16).uint32(m.pasid);
      if (m.access) w.uint32(24).uint32(m.access);
      if (m.lo) w.uint32(37).fixed32(m.lo);
      if (m.hi) w.uint32(45).fixed32(m.hi);
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 8:
            m.device = r.uint32();
            break;
          case 16:
            m.pasid = r.uint32();
            break;
          case 24:
            m.access = r.uint32();
            break;
          case 37:
            m.lo = r.fixed32();
            break;
          case 45:
            m.hi = r.fixed32();
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
  Resume: new Codec<M.Resume>(
    'Resume',
    (m) => {
      m.stall = 0;
      m.action = 0;
    },
    (m, w) => {
      if (m.stall) w.uint32(13).fixed32(m.stall);
      if (m.action) w.uint32(16).uint32(m.action);
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 13:
            m.stall = r.fixed32();
            break;
          case 16:
            m.action = r.uint32();
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
  PageResponse: new Codec<M.PageResponse>(
    'PageResponse',
    (m) => {
      m.rid = 0;
      m.pasid = 0;
      m.group = 0;
      m.code = 0;
    },
    (m, w) => {
      if (m.rid) w.uint32(8).uint32(m.rid);
      if (m.pasid) w.uint32(16).uint32(m.pasid);
      if (m.group) w.uint32(24).uint32(m.group);
      if (m.code) w.uint32(32).uint32(m.code);
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 8:
            m.rid = r.uint32();
            break;
          case 16:
            m.pasid = r.uint32();
            break;
          case 24:
            m.group = r.uint32();
            break;
          case 32:
            m.code = r.uint32();
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
  DeviceTlb: new Codec<M.DeviceTlb>(
    'DeviceTlb',
    (m) => {
      m.rid = 0;
      m.pasid = 0;
      m.lo = 0;
      m.hi = 0;
      m.log2Size = 0;
      m.global = false;
    },
    (m, w) => {
      if (m.rid) w.uint32(8).uint32(m.rid);
      if (m.pasid) w.uint32(16).uint32(m.pasid);
      if (m.lo) w.uint32(29).fixed32(m.lo);
      if (m.hi) w.uint32(37).fixed32(m.hi);
      if (m.log2Size) w.uint32(40).uint32(m.log2Size);
      if (m.global) w.uint32(48).bool(m.global);
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 8:
            m.rid = r.uint32();
            break;
          case 16:
            m.pasid = r.uint32();
            break;
          case 29:
            m.lo = r.fixed32();
            break;
          case 37:
            m.hi = r.fixed32();
            break;
          case 40:
            m.log2Size = r.uint32();
            break;
          case 48:
            m.global = r.bool();
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
  DeviceTlbReply: new Codec<M.DeviceTlbReply>(
    'DeviceTlbReply',
    (m) => {
      m.result = 0;
    },
    (m, w) => {
      if (m.result) w.uint32(8).uint32(m.result);
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 8:
            m.result = r.uint32();
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
  Error: new Codec<M.ErrorMessage>(
    'Error',
    (m) => {
      m.code = 0;
      m.text = '';
    },
    (m, w) => {
      if (m.code) w.uint32(8).uint32(m.code);
      if (m.text) w.uint32(18).string(m.text);
    },
    (m, r) => {
      for (let tag = r.next(); tag !== 0; tag = r.next()) {
        switch (tag) {
          case 8:
            m.code = r.uint32();
            break;
          case 18:
            m.text = r.string();
            break;
          default:
            r.skip(tag);
        }
      }
    },
  ),
} as const;

/** Of bodies, by message number. */
export const BODY = {
  [MESSAGE.HELLO]: CODEC.Hello,
  [MESSAGE.MEM_ADD]: CODEC.MemAdd,
  [MESSAGE.MEM_REMOVE]: CODEC.MemRemove,
  [MESSAGE.REG_WRITE]: CODEC.RegWrite,
  [MESSAGE.REG_READ]: CODEC.RegRead,
  [MESSAGE.TRANSLATE]: CODEC.Translate,
  [MESSAGE.DEVICE_ADDED]: CODEC.DeviceAdded,
  [MESSAGE.DEVICE_REMOVED]: CODEC.DeviceRemoved,
  [MESSAGE.RESET]: CODEC.Reset,
  [MESSAGE.REPLAY]: CODEC.Replay,
  [MESSAGE.NOTIFIER]: CODEC.Notifier,
  [MESSAGE.PAGE_REQUEST]: CODEC.PageRequest,
  [MESSAGE.TABLE_WRITE]: CODEC.TableWrite,
  [MESSAGE.MAIL]: CODEC.Mail,
  [MESSAGE.QUEUE_RAN]: CODEC.QueueRan,
  [MESSAGE.REMAP_INTERRUPT]: CODEC.RemapInterrupt,
  [MESSAGE.HOST_LISTEN]: CODEC.HostListen,
  [MESSAGE.HOST_SETTLE]: CODEC.HostSettle,
  [MESSAGE.HOST_DEVICE]: CODEC.HostDevice,
  [MESSAGE.HOST_EVENT]: CODEC.HostEvent,
  [MESSAGE.HOST_PAGE_REQUEST]: CODEC.HostPageRequest,
  [MESSAGE.HOST_PASID_REFUSED]: CODEC.HostPasidRefused,
  [MESSAGE.INVALIDATE]: CODEC.Invalidate,
  [MESSAGE.INTERRUPT]: CODEC.Interrupt,
  [MESSAGE.MEM_READ]: CODEC.MemRead,
  [MESSAGE.MEM_WRITE]: CODEC.MemWrite,
  [MESSAGE.MEM_CAS]: CODEC.MemCas,
  [MESSAGE.RESUME]: CODEC.Resume,
  [MESSAGE.PAGE_RESPONSE]: CODEC.PageResponse,
  [MESSAGE.DEVICE_TLB]: CODEC.DeviceTlb,
  [MESSAGE.HOST_BATCH]: CODEC.HostBatch,
  [MESSAGE.TRACK]: CODEC.Track,
  [MESSAGE.QUEUE]: CODEC.Queue,
  [MESSAGE.INVALIDATE_INTERRUPTS]: CODEC.InvalidateInterrupts,
  [MESSAGE.PEER_WALK]: CODEC.PeerWalk,
  [MESSAGE.HOST_SPACE_CREATE]: CODEC.HostSpaceCreate,
  [MESSAGE.HOST_SPACE_DESTROY]: CODEC.HostSpaceDestroy,
  [MESSAGE.HOST_MAP]: CODEC.HostMap,
  [MESSAGE.HOST_ATTACH]: CODEC.HostAttach,
  [MESSAGE.HOST_ATTACH_TABLES]: CODEC.HostAttachTables,
  [MESSAGE.HOST_DETACH]: CODEC.HostDetach,
  [MESSAGE.HOST_IDENTIFY]: CODEC.HostIdentify,
  [MESSAGE.HOST_INVALIDATE]: CODEC.HostInvalidate,
  [MESSAGE.HOST_PASID_ALLOC]: CODEC.HostPasidAlloc,
  [MESSAGE.HOST_PASID_FREE]: CODEC.HostPasidFree,
  [MESSAGE.HOST_RESPOND]: CODEC.HostRespond,
  [MESSAGE.ERROR]: CODEC.Error,
} as const;

/** Of the bodies of replies, by message number. */
export const REPLY = {
  [MESSAGE.HELLO]: CODEC.HelloReply,
  [MESSAGE.MEM_ADD]: CODEC.Status,
  [MESSAGE.MEM_REMOVE]: CODEC.Status,
  [MESSAGE.REG_WRITE]: CODEC.RegWriteReply,
  [MESSAGE.REG_READ]: CODEC.RegReadReply,
  [MESSAGE.TRANSLATE]: CODEC.TranslateReply,
  [MESSAGE.RESET]: CODEC.Status,
  [MESSAGE.REPLAY]: CODEC.ReplayReply,
  [MESSAGE.HOST_SETTLE]: CODEC.HostSettleReply,
  [MESSAGE.TABLE_WRITE]: CODEC.TableWriteReply,
  [MESSAGE.HOST_DEVICE]: CODEC.HostDeviceReply,
  [MESSAGE.REMAP_INTERRUPT]: CODEC.RemapInterruptReply,
  [MESSAGE.INVALIDATE]: CODEC.Status,
  [MESSAGE.INVALIDATE_INTERRUPTS]: CODEC.Status,
  [MESSAGE.MEM_READ]: CODEC.MemReadReply,
  [MESSAGE.MEM_WRITE]: CODEC.Status,
  [MESSAGE.MEM_CAS]: CODEC.MemCasReply,
  [MESSAGE.DEVICE_TLB]: CODEC.DeviceTlbReply,
  [MESSAGE.HOST_BATCH]: CODEC.HostBatchReply,
  [MESSAGE.TRACK]: CODEC.Status,
  [MESSAGE.HOST_SPACE_CREATE]: CODEC.HostReply,
  [MESSAGE.HOST_SPACE_DESTROY]: CODEC.HostReply,
  [MESSAGE.HOST_MAP]: CODEC.HostReply,
  [MESSAGE.HOST_ATTACH]: CODEC.HostReply,
  [MESSAGE.HOST_ATTACH_TABLES]: CODEC.HostReply,
  [MESSAGE.HOST_DETACH]: CODEC.HostReply,
  [MESSAGE.HOST_IDENTIFY]: CODEC.HostReply,
  [MESSAGE.HOST_INVALIDATE]: CODEC.HostReply,
  [MESSAGE.HOST_PASID_ALLOC]: CODEC.HostReply,
  [MESSAGE.HOST_PASID_FREE]: CODEC.HostReply,
} as const;
