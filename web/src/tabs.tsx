/** Panels of which one is seen; the others keep what they hold. */
import type { ComponentChildren } from "preact";

export interface Tab {
  id: string;
  label: string;
  body: ComponentChildren;
}

export function Tabs({ tabs, chosen, onChoose }: { tabs: readonly Tab[]; chosen: string; onChoose: (id: string) => void }) {
  const key = (event: KeyboardEvent) => {
    const at = tabs.findIndex((tab) => tab.id === chosen);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const { id } = tabs[(to + tabs.length) % tabs.length]!;
    onChoose(id);
    document.getElementById(`tab-${id}`)?.focus();
  };
  return (
    <section id="questions" class="panel" aria-label="Questions">
      <div role="tablist" aria-label="What to do" class="tabs" onKeyDown={key}>
        {tabs.map(({ id, label }) => (
          <button
            key={id}
            id={`tab-${id}`}
            type="button"
            role="tab"
            aria-selected={id === chosen}
            aria-controls={`panel-${id}`}
            tabIndex={id === chosen ? 0 : -1}
            onClick={() => onChoose(id)}
          >
            {label}
          </button>
        ))}
      </div>
      {tabs.map(({ id, body }) => (
        <div key={id} id={`panel-${id}`} role="tabpanel" aria-labelledby={`tab-${id}`} hidden={id !== chosen}>
          {body}
        </div>
      ))}
    </section>
  );
}
