/**
 * What HELLO has made of a connection: absent until then; the model and the page also after the
 * session's end.
 */
import type { Iommu } from '../device/iommu.js';
import type { Codec } from '../wire/codec.js';
import { FLAG, type Frame } from '../wire/frame.js';
import type { Outlet, SharedPage } from './ports.js';

/** What both sides agreed on. */
export interface Agreement {
  readonly version: number;
  readonly features: number;
  readonly vm: string;
  readonly modelName: string;
  readonly peer: string;
  readonly options: Readonly<Record<string, string>>;
  readonly backend: Outlet;
}

export class Connection {
  agreement: Agreement | undefined;
  model: Iommu | undefined;
  page: SharedPage | undefined;

  /** @param front where answers go */
  constructor(readonly front: Outlet) {}

  begin(agreement: Agreement, model: Iommu, page: SharedPage): void {
    this.agreement = agreement;
    this.model = model;
    this.page = page;
  }

  end(): void {
    this.model = undefined;
    this.page = undefined;
  }

  /** Features in force; 0 before HELLO. */
  get features(): number {
    return this.agreement?.features ?? 0;
  }

  reply<T extends object>(frame: Frame, codec: Codec<T>, message: T): void {
    this.front.put(frame.type, FLAG.REPLY, frame.id, codec, message);
  }

  /** The backend channel, if one of these features is in force. */
  backendWith(feature: number): Outlet | undefined {
    return (this.features & feature) !== 0 ? this.agreement?.backend : undefined;
  }
}
