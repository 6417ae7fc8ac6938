import { testSuite } from './run-suite.js';
import { VTD } from './vtd.js';

testSuite(VTD);
