"""Text in encodings that web pages declare."""

LETTERS = {  # label -> (codec, text), as a browser decodes the label
    "utf-8": ("utf-8", "Żółty most, мост, 橋"),
    "utf-16le": ("utf-16-le", "Żółty most, мост, 橋"),
    "iso-8859-1": ("cp1252", "The “café” – for 5 €"),
    "iso-8859-2": ("iso8859-2", "Starosta města otevřel nový most přes řeku"),
    "windows-1251": ("cp1251", "Мэр открыл новый мост через реку"),
    "koi8-r": ("koi8-r", "Мэр открыл новый мост через реку"),
    "windows-1253": ("cp1253", "Ο δήμαρχος εγκαινίασε τη νέα γέφυρα τη Δευτέρα"),
    "shift_jis": ("cp932", "市長は川に架かる新しい橋を①開通させた"),
    "euc-jp": ("euc_jp", "市長は月曜日の朝、川に架かる新しい橋を開通させた"),
    "gb2312": ("gb18030", "市长为横跨河流的新桥揭幕，朱镕基"),
    "big5": ("big5", "市長為橫跨河流的新橋揭幕，距開工已有兩年"),
    "euc-kr": ("cp949", "시장은 강을 가로지르는 새 다리를 개통했다"),
}
