/** Bodies of what host objects of assigned devices are asked for, and of what comes up from them. */
import { Codec, EMPTY, NO_BYTES } from './body.js';
import type * as M from './host-messages.js';

export const HOST_CODECS = {
  HostDevice: new Codec<M.HostDevice>('HostDevice', (m) => {
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
  }),
  HostDeviceReply: new Codec<M.HostDeviceReply>('HostDeviceReply', (m) => {
    m.code = 0;
    m.text = '';
    m.choice = 0;
  }),
  HostSpaceCreate: new Codec<M.HostSpaceCreate>('HostSpaceCreate', (m) => {
    m.space = 0;
    m.device = 0;
    m.parent = false;
  }),
  HostSpaceDestroy: new Codec<M.HostSpaceDestroy>('HostSpaceDestroy', (m) => {
    m.space = 0;
  }),
  HostMap: new Codec<M.HostMap>('HostMap', (m) => {
    m.space = 0;
    m.ops = EMPTY;
  }),
  HostAttach: new Codec<M.HostAttach>('HostAttach', (m) => {
    m.device = 0;
    m.pasid = 0;
    m.space = 0;
  }),
  HostAttachTables: new Codec<M.HostAttachTables>('HostAttachTables', (m) => {
    m.device = 0;
    m.pasid = 0;
    m.parent = 0;
    m.type = 0;
    m.data = NO_BYTES;
  }),
  HostDetach: new Codec<M.HostDetach>('HostDetach', (m) => {
    m.device = 0;
    m.pasid = 0;
  }),
  HostIdentify: new Codec<M.HostIdentify>('HostIdentify', (m) => {
    m.device = 0;
    m.idLo = 0;
    m.idHi = 0;
  }),
  HostInvalidate: new Codec<M.HostInvalidate>('HostInvalidate', (m) => {
    m.space = 0;
    m.type = 0;
    m.size = 0;
    m.targets = EMPTY;
    m.entries = NO_BYTES;
  }),
  HostPasidAlloc: new Codec<M.HostPasidAlloc>('HostPasidAlloc', (m) => {
    m.device = 0;
  }),
  HostPasidFree: new Codec<M.HostPasidFree>('HostPasidFree', (m) => {
    m.device = 0;
    m.pasid = 0;
  }),
  HostReply: new Codec<M.HostReply>('HostReply', (m) => {
    m.code = 0;
    m.text = '';
    m.done = 0;
    m.value = 0;
  }),
  HostRespond: new Codec<M.HostRespond>('HostRespond', (m) => {
    m.device = 0;
    m.pasid = 0;
    m.group = 0;
    m.code = 0;
  }),
  HostEvent: new Codec<M.HostEvent>('HostEvent', (m) => {
    m.space = 0;
    m.device = 0;
    m.pasid = 0;
    m.type = 0;
    m.record = NO_BYTES;
    m.lost = false;
  }),
  HostPageRequest: new Codec<M.HostPageRequest>('HostPageRequest', (m) => {
    m.device = 0;
    m.pasid = 0;
    m.access = 0;
    m.lo = 0;
    m.hi = 0;
    m.group = 0;
    m.last = false;
  }),
  HostPasidRefused: new Codec<M.HostPasidRefused>('HostPasidRefused', (m) => {
    m.device = 0;
    m.pasid = 0;
    m.access = 0;
    m.lo = 0;
    m.hi = 0;
  }),
} as const;
