/** The page that translations are cached, invalidated and requested in, whatever the granule. */
export const PAGE_LOG2 = 12;
export const PAGE_BYTES = 2 ** PAGE_LOG2;
/** Address bits within a page, in the low half of an address. */
export const PAGE_OFFSET = PAGE_BYTES - 1;
