/** Messages of host objects of assigned devices, as types; meanings and units stand in `proto/viommu.proto`. */

export interface HostDevice {
  device: number;
  kind: number;
  container: number;
  abilities: number;
  infoType: number;
  info: Uint8Array;
  pasidBits: number;
  ranges: ArrayLike<number>;
  mappings: number;
  batches: boolean;
}
export interface HostDeviceReply {
  code: number;
  text: string;
  choice: number;
}
export interface HostSpaceCreate {
  space: number;
  device: number;
  parent: boolean;
}
export interface HostSpaceDestroy {
  space: number;
}
export interface HostMap {
  space: number;
  ops: ArrayLike<number>;
}
export interface HostAttach {
  device: number;
  pasid: number;
  space: number;
}
export interface HostAttachTables {
  device: number;
  pasid: number;
  parent: number;
  type: number;
  data: Uint8Array;
}
export interface HostDetach {
  device: number;
  pasid: number;
}
export interface HostIdentify {
  device: number;
  idLo: number;
  idHi: number;
}
export interface HostInvalidate {
  space: number;
  type: number;
  size: number;
  targets: ArrayLike<number>;
  entries: Uint8Array;
}
export interface HostPasidAlloc {
  device: number;
}
export interface HostPasidFree {
  device: number;
  pasid: number;
}
export interface HostReply {
  code: number;
  text: string;
  done: number;
  value: number;
}
export interface HostRespond {
  device: number;
  pasid: number;
  group: number;
  code: number;
}
export interface HostEvent {
  space: number;
  device: number;
  pasid: number;
  type: number;
  record: Uint8Array;
  lost: boolean;
}
export interface HostPageRequest {
  device: number;
  pasid: number;
  access: number;
  lo: number;
  hi: number;
  group: number;
  last: boolean;
}
export interface HostPasidRefused {
  device: number;
  pasid: number;
  access: number;
  lo: number;
  hi: number;
}
