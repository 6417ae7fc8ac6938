/**
 * Work that one input may cause, in 32-bit words of guest memory loaded and stored. What would take
 * longer has to stop and go on with a later input.
 *
 * One register write may run a whole invalidation queue. The largest ring has 2^7 pages (VT-d
 * §11.4.9.3) of 256 descriptors each, and a descriptor costs at most its 8 words and a wait's
 * status.
 */
export const WORDS_PER_WRITE = 128 * 256 * 10;

/**
 * One translation: structures (root 4, context 8, directory 2, PASID entry 16 words), a nested walk
 * of 5 levels (5 × 6 + 5 entries) with an update of each, and the neighbours in one table, each of
 * which may take a walk of the second stage.
 */
export const WORDS_PER_TRANSLATION = 8192;
