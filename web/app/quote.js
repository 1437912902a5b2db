// Text as a word of a shell's command line.

/**
 * One word for a POSIX shell, whatever is in it.
 * @param {string} text
 */
export const shellWord = (text) =>
  /^[\w./:@%+,=-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
