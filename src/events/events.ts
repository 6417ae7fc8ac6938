/**
 * Everything that observers can hear of, as one typed union, and the bus that carries it. Observers may be
 * added and removed at any time without changing one byte of what the engine does.
 */
import type { ModelEvent } from '../device/iommu.js';

/** What happens to a session rather than inside its model. */
export type SessionEvent =
  | { readonly kind: 'hello'; readonly vm: string; readonly model: string; readonly peer: string }
  | {
      readonly kind: 'regionAdded';
      readonly region: number;
      readonly gpa: number;
      readonly size: number;
      readonly shared: boolean;
    }
  | { readonly kind: 'regionRemoved'; readonly region: number }
  | { readonly kind: 'deviceAdded'; readonly device: number; readonly rid: number; readonly name: string }
  | { readonly kind: 'deviceRemoved'; readonly device: number }
  | { readonly kind: 'reset' };

export type ViommuEvent = ModelEvent | SessionEvent;

export type Listener = (event: ViommuEvent) => void;

/** Delivers events, in order, to whoever listens now. */
export class EventBus {
  readonly #listeners = new Set<Listener>();

  /** Adds a listener; the returned function removes it. */
  listen(listener: Listener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** True when nobody listens: the caller need not even make the event. */
  get silent(): boolean {
    return this.#listeners.size === 0;
  }

  emit(event: ViommuEvent): void {
    for (const listener of this.#listeners) listener(event);
  }
}
