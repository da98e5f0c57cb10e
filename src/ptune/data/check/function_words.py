"""The most frequent words of languages in Latin script. Words of the main language of the data are not counted."""

from __future__ import annotations

FUNCTION_WORDS = {
    "English": (
        "the and of to is was that it for with are this have not you be from they what which would there his "
        "her she he will can been were has had if when how my your about who where do does did could should "
        "than them a in i on at by me we or as so an am no us up go all one out get just any into over only "
        "some then now more its our because"
    ),
    "German": (
        "der und das ist nicht ich sie ein eine den dem mit auf für sich von auch wird sind wir aber oder war "
        "haben nach einen einem wenn über nur noch zum zur wie bei kann sehr mein dass durch vom"
    ),
    "French": (
        "le les et est dans pour une pas que qui vous nous avec sur ce cette ne je plus aux du au sont mais "
        "ils elle son sa ses être ont fait très bien leur votre ou tout il des était"
    ),
    "Spanish": (
        "el los las que es una por con para del se no lo como pero más su muy está esta son fue ser este "
        "cuando todo mi ha hay sus al nos porque también sin sobre donde quiero tiene"
    ),
    "Portuguese": (
        "os que não uma um para com em do da dos das por mais se na no foi como mas ao ele ela você são muito "
        "está isso também já seu sua quando pelo meu tem ou eu nos"
    ),
    "Italian": (
        "il gli che di una per non con sono della del le si più ho ma questo come ha anche dei nel alla alle "
        "degli delle stato molto essere quando sua loro io cosa perché lo mi ci"
    ),
    "Dutch": (
        "de het een en van is dat niet ik je op te zijn met voor die ook aan er maar wat als naar dit wel om "
        "heb kan deze heeft nog door bij over geen worden uit zo hij wij mijn"
    ),
    "Swedish": (
        "och att det är som en på av för inte med jag har till ett den om men var de kan han vi så när från "
        "hade eller skulle mig bara vad här efter mycket också"
    ),
    "Danish or Norwegian": (
        "og at det er som en på af for ikke med jeg har til et den om men var de kan han vi så når fra havde "
        "eller skulle mig bare hvad her efter meget også hvis hun være blev"
    ),
    "Finnish": (
        "ja on ei että se hän oli ovat mutta kun niin mitä tämä myös olen voi kuin jos sen vain sitä minä ole "
        "olla tai joka siitä nyt mukaan jotka"
    ),
    "Polish": (
        "nie na się że jest do to jak po co ale tak od za przez tym był czy już ja tylko może dla jego są być "
        "bardzo które który gdy także"
    ),
    "Czech": (
        "je se na že to do jako ale by jsem jsou pro jeho byl nebo když tak už co podle která které který "
        "není až ještě jen mezi bylo"
    ),
    "Turkish": (
        "ve bir bu için çok ne da ile mi ben daha gibi kadar sen var ama değil olan olarak sonra en her şey "
        "ki nasıl diye bana yok"
    ),
    "Indonesian": (
        "yang dan di ini itu dengan untuk dari tidak dalam akan pada ke ada saya juga oleh karena adalah kita "
        "bisa sudah telah lebih atau tersebut mereka"
    ),
    "Vietnamese": (
        "và là của có không được cho một những trong này người với các đã để khi đến về cũng như nhưng rất tôi từ nhiều"
    ),
    "Romanian": (
        "și în de la nu este cu pe un care mai din sunt că pentru dar ce am fost lui sau ca fi foarte această "
        "acest prin după dacă"
    ),
    "Hungarian": (
        "az és hogy nem is egy van meg de volt csak már ez mint azt még ha vagy kell nagyon lehet ezt minden "
        "amely szerint után"
    ),
}
