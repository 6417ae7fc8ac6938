export function requireFresh(root: string, instead?: string): void;
export function requireFreshBridge(root: string, made: string | undefined): void;
