/**
 * Descriptors of VMSAv8-64 translation tables (DDI 0487, D8.3), for people. What the architecture
 * reserves in them is RES0 or ignored, never a fault, so every bit belongs to a field: `IGN…` where
 * it has no meaning here.
 */

import { addr, type FieldInput, type Layout, layout } from '../define.js';

type Fields = Record<string, FieldInput>;

const made = new Map<string, Layout<string>>();

/**
 * A descriptor that points to a table. `granule` is log2; `large`: bits 15:12 are address bits
 * 51:48.
 */
export function tableLayout(stage: 1 | 2, granule: number, large: boolean): Layout<string> {
  const limits: Fields =
    stage === 1
      ? { IGN_58_52: [58, 52], PXNTable: 59, UXNTable: 60, APTable: [62, 61], NSTable: 63 }
      : { IGN_63_52: [63, 52] };
  return declare(`S${stage} table descriptor, ${2 ** (granule - 10)} KiB granule`, large, {
    valid: 0,
    type: 1,
    IGN_11_2: [11, 2],
    ...addressFields(granule, large),
    IGN_51: 51,
    ...limits,
  });
}

/** A block or page descriptor that maps 2^`shift` bytes. */
export function leafLayout(stage: 1 | 2, shift: number, large: boolean): Layout<string> {
  const attributes: Fields =
    stage === 1
      ? { AttrIndx: [4, 2], NS: 5, AP: [7, 6], nG: 11, PXN: 53, UXN: 54 }
      : { MemAttr: [5, 2], S2AP: [7, 6], FnXS: 11, XN: [54, 53] };
  return declare(`S${stage} block or page descriptor of 2^${shift} bytes`, large, {
    valid: 0,
    type: 1,
    SH: [9, 8],
    AF: 10,
    ...attributes,
    ...addressFields(shift, large),
    DBM: 51,
    Contiguous: 52,
    IGN_58_55: [58, 55],
    PBHA: [62, 59],
    IGN_63: 63,
  });
}

function addressFields(lowest: number, large: boolean): Fields {
  const first = large ? 16 : 12;
  return {
    ...(large ? { ADDR_51_48: [15, 12] } : {}),
    ...(lowest > first ? { [`IGN_${lowest - 1}_${first}`]: [lowest - 1, first] } : {}),
    ADDR: addr(47, lowest),
    IGN_50_48: [50, 48],
  };
}

function declare(name: string, large: boolean, fields: Fields): Layout<string> {
  const key = large ? `${name}, 52-bit addresses` : name;
  let shape = made.get(key);
  if (shape === undefined) {
    shape = layout(key, 8, fields);
    made.set(key, shape);
  }
  return shape;
}
