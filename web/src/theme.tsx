/** Light or dark: as the system says, unless the reader of the page said otherwise. */
import { useLayoutEffect, useState } from "preact/hooks";

import { browser, store, stored } from "./storage";

const KEPT = "augury.theme";

export function Theme() {
  const [theme, setTheme] = useState(() => stored(browser, KEPT) ?? "system");
  useLayoutEffect(() => {
    document.documentElement.dataset["theme"] = theme;
    store(browser, KEPT, theme);
  }, [theme]);
  return (
    <label class="theme">
      <span class="hidden">Colours</span>
      <select value={theme} onChange={(event) => setTheme(event.currentTarget.value)}>
        <option value="system">System</option>
        <option value="light">Light</option>
        <option value="dark">Dark</option>
      </select>
    </label>
  );
}
