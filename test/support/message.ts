import type { Codec } from '../../src/wire/codec.js';

/**
 * A message with these fields, all others as the wire's defaults. Unlike `{ ...codec.create(), …}`,
 * a field that the message does not have is a type error.
 */
export function message<T extends object>(codec: Codec<T>, fields: Partial<T>): T {
  return { ...codec.create(), ...fields };
}
