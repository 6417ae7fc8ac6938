/** Numbers used in place of an id. */

/** `pasid` of a request without PASID. */
export const NO_PASID = -1;

/** Stands for "every one" in a scope. */
export const ANY = 0xffffffff;

/** `space` of an address space without translations: only a scope of everything names it. */
export const NO_TAG = 0xfffffffd;
