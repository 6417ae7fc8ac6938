/** How many descriptors a frame must bring. */
import { CodedError } from '../base/errors.js';
import { type Frame, messageName } from '../wire/frame.js';

/** Throws unless exactly `count` descriptors came with the frame. */
export function expectDescriptors(frame: Frame, count: number): void {
  const came = frame.descriptors.length;
  if (came === count) return;
  throw new CodedError(
    came < count ? 'MISSING_DESCRIPTOR' : 'EXTRA_DESCRIPTOR',
    `${messageName(frame.type)} with ${came} descriptors, not ${count}`,
  );
}
