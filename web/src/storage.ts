/** The browser's storage, which its user may have closed: then nothing is remembered, and all else works. */

export function stored(where: () => Storage, name: string): string | null {
  try {
    return where().getItem(name);
  } catch {
    return null;
  }
}

/** Whether it was kept. */
export function store(where: () => Storage, name: string, value: string): boolean {
  try {
    where().setItem(name, value);
    return true;
  } catch {
    return false;
  }
}

export const tab = () => sessionStorage;
export const browser = () => localStorage;
