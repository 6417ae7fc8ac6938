/**
 * Refuses a Node that is too old. The entry imports this first, so that it is said before anything
 * that such a Node does not know is evaluated.
 */
import { say } from './exec.mjs';
import { checkNode } from './platform.mjs';

try {
  checkNode();
} catch (error) {
  say(error.message);
  process.exit(error.exitCode);
}
