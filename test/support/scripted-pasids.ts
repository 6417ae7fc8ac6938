import type { PasidSpace } from '../../src/device/pasid-space.js';

/** Answers what the test says. */
export class ScriptedSpace implements PasidSpace {
  readonly asked: string[] = [];
  constructor(public answer: number) {}
  allocate(): number {
    this.asked.push('allocate');
    return this.answer;
  }
  free(pasid: number): number {
    this.asked.push(`free 0x${pasid.toString(16)}`);
    return this.answer;
  }
  releaseAll(): void {
    this.asked.push('release');
  }
}
